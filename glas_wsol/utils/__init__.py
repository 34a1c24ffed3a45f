# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Helpers that know nothing of images or networks."""
