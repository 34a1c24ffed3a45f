# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""Ships the folders ``bundles/`` and ``configs/`` inside the package; everything else is in ``pyproject.toml``."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["glas_wsol*"]), "glas_wsol.bundles", "glas_wsol.configs"],
    package_dir={"glas_wsol.bundles": "bundles", "glas_wsol.configs": "configs"},
    package_data={
        "glas_wsol": ["**/*.json", "**/*.html", "**/*.css", "**/*.js", "**/*.svg", "**/LICENSES.txt", "py.typed"],
        "glas_wsol.bundles": ["*/LICENSE", "*/configs/*", "*/docs/*", "*/models/*", "*/samples/*"],
        "glas_wsol.configs": ["*.md", "*/*.json"],
    },
)
