# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What MONAI lacks: colour and stain jitter, stain normalisation, exact padding, 2-D reading that never transposes."""
