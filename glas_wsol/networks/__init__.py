# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Trunks, pooling, class maps and the networks made of them."""
