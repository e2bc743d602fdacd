"""What pyproject.toml cannot say: search spaces, built-in data and policies are installed too.

They stand at the top of the repository, and in an installation inside `harness`.
"""

import sys

from setuptools import find_packages, setup

FOLDERS = {f"harness.{name}": name for name in ("search_spaces", "data", "policies")}
# An editable installation reads them where they stand.
MAPPED = {} if "editable_wheel" in sys.argv else FOLDERS

setup(
    packages=[*find_packages(include=["envs*", "harness*", "ibc*"]), *MAPPED],
    package_dir=MAPPED,
    package_data={
        "harness.search_spaces": ["*.yaml"],
        "harness.data": ["README.md", "*.zarr/**", "*.zarr/**/.z*"],
        "harness.policies": ["README.md", "*/*"],
        "harness.page": ["*.css", "*.js"],
        "harness.page.energy": ["*.css", "*.js"],
    },
)
