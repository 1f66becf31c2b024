# SPDX-License-Identifier: Apache-2.0
"""The response cache on the command line, and the page of scripts/bench-response-cache."""

import cli_runs
import pytest
from cli_runs import GOLDEN, TINY, run, validated

from maskkv_eval import response


def test_generate_takes_every_and_share_and_tells_what_is_held(tiny):
    def answer(*flags):
        return validated("generate", tiny.generate("--json", "--ignore-eos", *flags).json)

    plain, exact = answer(), answer("--response-every", 1)
    every_row = answer("--response-every", 4, "--response-share", 1)
    assert plain["steps"] == exact["steps"] == every_row["steps"]
    assert plain["memory_bytes"]["response_cache"] == exact["memory_bytes"]["response_cache"] == 0
    cached = answer("--response-every", 4, "--response-share", 0.2)
    held = cached["memory_bytes"]["response_cache"]
    assert held == every_row["memory_bytes"]["response_cache"] > 0
    assert cached["steps"][0] == plain["steps"][0] and cached["steps"] != plain["steps"]
    without = answer("--response-every", 4, "--cache", "none")
    assert without["memory_bytes"]["response_cache"] > held  # the prompt's rows too


@pytest.mark.parametrize("flags, said", [
    (("--response-every", "-1"), "--response-every: expected an integer from 0 to 16777216, found -1"),
    (("--response-share", 0), "--response-share: expected a number above 0, at most 1, found 0"),
    (("--response-share", 1.5), "--response-share: expected a number above 0, at most 1, found 1.5"),
])
def test_values_out_of_range_are_refused(tiny, flags, said):
    failed = tiny.generate(*flags)
    assert failed.code == 2 and said in failed.error


def test_evaluate_crosses_response_caches_with_rules(tiny):
    args = ("evaluate", "--model", TINY, "--profile", tiny.profile, "--questions", tiny.questions,
            "--gen-length", 8, "--limit", 2, "--caches", "full,none", "--ignore-eos")
    cells = validated("evaluate", run(*args, "--json", "--rules", "low_confidence,random",
                                      "--response-caches", "off,3:0.25").json)["cells"]
    assert [(c["cache"], c["rule"], c["response_every"], c["response_share"]) for c in cells] == [
        (cache, rule, *each) for cache in ("full", "none")
        for rule in ("low_confidence", "random") for each in ((None, None), (3, 0.25))]
    for plain, cached in zip(cells[::2], cells[1::2], strict=True):
        assert plain["reused_rows"] == 0 and cached["seconds"] > 0
        assert cached["steps"] == plain["steps"] == 2 * 8  # whole: 0, 3, 6
        assert cached["rows"] + cached["reused_rows"] == plain["rows"]
    assert cells[1]["rows"] == 2 * (3 * 8 + 5 * 2)
    alone = run(*args, "--json", "--response-every", 3).json["cells"]
    for cell, other in zip(alone, cells[1::4], strict=True):
        assert {**other, "seconds": None} == cell
    text = run(*args, "--response-caches", "2:0.5")
    assert text.code == 0 and "rows anew every 2, 0.5 between" in text.text
    failed = run(*args, "--response-caches", "2:0.5,3")
    assert failed.code == 2 and "expected off or EVERY:SHARE" in failed.error
    assert run(*args, "--response-caches", "off", "--response-every", 2).code == 2


def cell(every=None, share=None, outcomes="1101", seconds=2.0, reused=0):
    return {"model": "m", "response_every": every, "response_share": share, "rows": 100 - reused,
            "reused_rows": reused, "questions": len(outcomes), "correct": outcomes.count("1"),
            "outcomes": outcomes, "steps": 20, "seconds": seconds}


def test_rows_of_the_table_are_measured_against_the_exact_steps():
    lines = response.accuracy_table([cell(), cell(5, 0.25, "1010", 1.0, 60)])
    assert lines[2].startswith("| 1 | all | 100 | 100.00 | 1.00 | 75.0 (")
    assert lines[3].startswith("| 5 | 0.25 | 40 | 50.00 | 2.00 | 50.0 (")
    assert lines[3].endswith("| -2 +1 (p 1.00) |")


def test_a_page_of_a_real_run(tmp_path, monkeypatch):
    monkeypatch.chdir(cli_runs.ROOT)
    page = tmp_path / "page.md"
    response.main(["--bench-model", str(GOLDEN / "mha"), "--models", "tiny-llada", "--questions", "3",
                   "--length", "200", "--gen-length", "8", "--every", "2,4", "--share", "0.25",
                   "--answers", "12", "--prompt", "20", "--steps", "6", "--markdown", str(page),
                   "--bin", str(cli_runs.binary())])  # fmt: skip
    text = page.read_text()
    assert "### tiny-llada\n" in text and "### 12 rows\n" in text
    for setting in ("| 1 | all |", "| 2 | 0.25 |", "| 4 | 0.25 |"):
        assert text.count(setting) == 2
    assert "scripts/bench-response-cache --models tiny-llada" in text
