# SPDX-License-Identifier: Apache-2.0
"""The committed tokenizers and cases are what the `tokenizers` package makes today."""

import pathlib

import pytest

from maskkv_tools import tokenizer_golden

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "data" / "tokenizer"


@pytest.mark.parametrize("kind", tokenizer_golden.KINDS)
def test_golden_files_are_what_the_package_makes(kind):
    for path, content in tokenizer_golden.files(kind).items():
        assert (FOLDER / path).read_text(encoding="utf-8") == content, (
            f"{path}: regenerate with PYTHONPATH=python python3 -m maskkv_tools.tokenizer_golden")
