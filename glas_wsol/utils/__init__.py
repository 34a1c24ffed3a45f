# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Help everywhere: files, settings, processes and threads; independent of images and networks."""
