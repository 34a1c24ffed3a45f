# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Whether a training's masks can be trusted, judged without any outline: signals, alarm, choice of a model."""
