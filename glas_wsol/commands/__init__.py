# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""The commands of ``python -m glas_wsol``, one module each."""
