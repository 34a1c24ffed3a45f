# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The second stage: teachers generate pseudo-labels, and a decoder learns from them, in rounds."""
