"""What pyproject.toml cannot say: search spaces and built-in data are installed with the package.

They stand at the top of the repository, and in an installation inside `harness`.
"""

import sys

from setuptools import find_packages, setup

FOLDERS = {"harness.search_spaces": "search_spaces", "harness.data": "data"}
# An editable installation reads them where they stand.
MAPPED = {} if "editable_wheel" in sys.argv else FOLDERS

setup(
    packages=[*find_packages(include=["envs*", "harness*", "ibc*"]), *MAPPED],
    package_dir=MAPPED,
    package_data={
        "harness.search_spaces": ["*.yaml"],
        "harness.data": ["README.md", "expert.zarr/**", "expert.zarr/**/.z*"],
        "harness.page": ["*.css", "*.js"],
        "harness.page.energy": ["*.css", "*.js"],
    },
)
