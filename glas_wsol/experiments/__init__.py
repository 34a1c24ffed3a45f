# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Runs many trainings, and makes tables and figures of them."""
