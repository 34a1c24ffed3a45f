# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What every room uses: several processes, files that appear whole, locks, background threads, CSV and JSON."""
