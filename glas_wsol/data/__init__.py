# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Read data sets: datalists and splits of GlaS, CUB-200-2011 and any folder or table; draw the phantoms."""

from __future__ import annotations

from glas_wsol.data.class_folders import folder_datalist
from glas_wsol.data.csv_table import table_datalist
from glas_wsol.data.cub import CUB5_CLASSES, cub_datalist
from glas_wsol.data.datalist import load_datalist
from glas_wsol.data.glas import GLAS_CLASSES, glas_datalist
from glas_wsol.data.images import images_datalist, list_images
from glas_wsol.data.splits import Datalist, Item
from glas_wsol.data.training_data import training_data, training_mpp

__all__ = [
    "CUB5_CLASSES",
    "GLAS_CLASSES",
    "Datalist",
    "Item",
    "cub_datalist",
    "folder_datalist",
    "glas_datalist",
    "images_datalist",
    "list_images",
    "load_datalist",
    "table_datalist",
    "training_data",
    "training_mpp",
]
