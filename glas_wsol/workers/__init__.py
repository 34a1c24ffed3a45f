# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Do pieces of work elsewhere: in processes of this machine, or on the workers of a dask cluster."""
