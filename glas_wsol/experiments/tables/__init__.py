# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Tables of methods from evaluated runs: reading, grouping, statistics, printing. Nothing here runs a network."""
