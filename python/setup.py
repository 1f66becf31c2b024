# SPDX-License-Identifier: Apache-2.0
"""Everything is in pyproject.toml but this: building the package makes maskkv.v1 from protos/."""

import pathlib
import sys

from setuptools import setup
from setuptools.command.build_py import build_py

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import maskkv_build  # noqa: E402


class BuildWithProtos(build_py):
    def run(self):
        maskkv_build.generate()
        super().run()


setup(cmdclass={"build_py": BuildWithProtos})
