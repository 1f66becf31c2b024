# SPDX-License-Identifier: Apache-2.0
"""The picture of what a cache kept, drawn from real runs of maskkv inspect."""

import json

import matplotlib.image
import numpy as np
import pytest

from cli_runs import GOLDEN, run
from maskkv_tools import plot_kept


@pytest.mark.parametrize("flags", [("--budget", 16), ("--cache", "full")])
def test_a_picture_is_written(tiny, tmp_path, flags):
    kept, picture = tmp_path / "kept.json", tmp_path / "kept.png"
    kept.write_bytes(run("inspect", *tiny.args("--gen-length", 8, "--json", *flags)).out)
    plot_kept.main([str(kept), str(picture)])
    pixels = matplotlib.image.imread(picture, format="png")
    assert min(pixels.shape[:2]) > 600
    assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 50, "colours"


@pytest.mark.parametrize("prompt", [[], [5, 6, 7]])
def test_a_short_prompt_and_an_empty_one_are_drawn(ids_file, tmp_path, prompt):
    report = run("inspect", "--model", GOLDEN / "mqa", "--layers", "uniform", "--budget", 2,
                 "--gen-length", 2, "--prompt-ids", ids_file(prompt), "--json").json
    plot_kept.draw(report).savefig(tmp_path / "kept.png")


def test_the_map_counts_each_kept_position_once():
    rng = np.random.default_rng(5)
    for tokens in (1, 7, 512, 513, 1500):
        heads = [sorted(rng.choice(tokens, rng.integers(1, tokens + 1), replace=False).tolist())
                 for _ in range(4)]
        report = {"prompt_tokens": tokens, "positions": [heads[:2], heads[2:]]}
        shares = plot_kept.position_map(report)
        assert len(shares) == 4 and shares.shape[1] <= plot_kept.MOST_COLUMNS
        assert shares.shape[1] * plot_kept.column_width(tokens) >= tokens
        assert shares.min() >= 0 and shares.max() <= 1
        if tokens <= plot_kept.MOST_COLUMNS:
            assert shares.sum(axis=1).tolist() == [len(head) for head in heads]
    everything = {"prompt_tokens": 1000, "positions": [[list(range(1000))]]}
    assert (plot_kept.position_map(everything) == 1).all()
