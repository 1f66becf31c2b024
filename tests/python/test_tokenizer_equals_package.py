# SPDX-License-Identifier: Apache-2.0
"""Our tokenizer against the `tokenizers` package over random texts and over all of Unicode.

Runs the binary tokenize_lines of the newest build. MASKKV_TEST_SEED sets another seed.
"""

import json
import os
import pathlib
import random
import subprocess

import pytest
from tokenizers import Tokenizer

from maskkv_tools import tokenizer_golden, unusual_texts

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = [*(ROOT / "tests/data/tokenizer" / kind for kind in tokenizer_golden.KINDS),
           ROOT / "models/tiny-llada"]
RANDOM_TEXTS = 2500
SEED = int(os.environ.get("MASKKV_TEST_SEED", "20260101"))


def binary():
    built = sorted(ROOT.glob("build/*/tests/tokenize_lines"), key=lambda path: path.stat().st_mtime)
    assert built, "tokenize_lines is not built: cmake --build build/release --target tokenize_lines"
    return built[-1]


def ours(folder, mode, texts):
    run = subprocess.run([binary(), folder, mode], input="\n".join(map(json.dumps, texts)),
                         capture_output=True, text=True, check=True)
    return [json.loads(line) for line in run.stdout.split("\n") if line]


def assert_equal(folder, texts, modes=("parse", "plain")):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for mode in modes:
        results = ours(folder, mode, texts)
        assert len(results) == len(texts)
        for text, result in zip(texts, results):
            ids = tokenizer_golden.encode(tokenizer, text, plain=mode == "plain")
            expected = {"ids": ids, "text": tokenizer.decode(ids, skip_special_tokens=False)}
            if result != expected:
                pytest.fail(f"seed {SEED}, {mode}, text {text[:500]!a}:\n"
                            f"expected {str(expected)[:2000]!a}\nfound    {str(result)[:2000]!a}")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_random_texts_have_the_same_tokens(folder):
    rng = random.Random(SEED)
    texts = [unusual_texts.random_text(rng) for _ in range(RANDOM_TEXTS)]
    assert_equal(folder, texts)


@pytest.mark.parametrize("folder", FOLDERS[:2], ids=lambda path: path.name)
def test_every_code_point_is_cut_and_normalised_the_same(folder):
    """Each one after a letter, a number and an accent, before a mark that goes below."""
    # Everything that may ever be assigned, and some of the empty and private planes.
    points = [*range(0xD800), *range(0xE000, 0x33000), *range(0xE0000, 0xE0200),
              *range(0x33000, 0x110000, 101)]
    texts = ["".join(f"a{chr(p)}1{chr(p)}\u0316a\u0301{chr(p)} " for p in points[i:i + 256])
             for i in range(0, len(points), 256)]
    assert_equal(folder, texts, modes=["parse"])


def test_a_megabyte_is_one_text():
    rng = random.Random(SEED)
    text = "".join(unusual_texts.random_text(rng) for _ in range(30000))[:1000000]
    for part in (text, " " * 100000 + "x", "a" * 100000, "\n " * 50000, "'" * 100000):
        assert_equal(FOLDERS[0], [part], modes=["parse"])
