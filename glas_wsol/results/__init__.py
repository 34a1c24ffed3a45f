# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Results: what they say, and how to read them."""
