# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Classification error and region overlap as MONAI metrics, with bootstrap intervals."""
