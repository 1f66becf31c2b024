# SPDX-License-Identifier: Apache-2.0
"""Lets the tests import the packages under python/ without installing them."""

import os
import pathlib
import sys

# Before NumPy is loaded: its matrices here are too small for threads, which only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "python"))

from cli_fixtures import ids_file, tiny  # noqa: E402,F401  (shared by the tests of the command line)
