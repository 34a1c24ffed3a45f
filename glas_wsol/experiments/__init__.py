# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Many runs, and the tables and figures made of them."""
