# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Makes tables of methods from evaluated runs. Nothing here runs a network."""
