# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""A local web page to look at results, correct their outlines and learn from them."""
