# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Many slides: each is a job whose result is a folder that appears whole."""
