# SPDX-License-Identifier: Apache-2.0
"""--refresh-every and --refresh-floor of maskkv generate and evaluate: when the prompt is prefilled
again, what is told of it, and what is refused."""

import json

import pytest

from cli_runs import TINY, run, validated

DECODE = ("--gen-length", 8, "--ignore-eos", "--budget", 4, "--json")


def generate(tiny, *flags):
    return validated("generate", run("generate", *tiny.args(*DECODE, *flags)).json)


@pytest.mark.parametrize("every,before", [(0, []), (1, [1, 2, 3, 4, 5, 6, 7]), (3, [3, 6]),
                                          (4, [4]), (8, [])])
def test_the_prompt_is_refreshed_every_so_many_steps_but_not_at_the_end(tiny, every, before):
    report = generate(tiny, "--refresh-every", every)
    assert [refresh["step"] for refresh in report["refreshes"]] == before
    assert [step["step"] for step in report["steps"]] == list(range(8))
    assert not any("kept_mass" in step for step in report["steps"])
    never = generate(tiny)
    assert report["kept"] == never["kept"], "of the first prefill"
    # Up to the first refresh, nothing is different.
    first = before[0] if before else 8
    assert report["steps"][:first] == never["steps"][:first]


@pytest.mark.parametrize("floor", [1e-9, 0.9, 1])
def test_on_demand_means_below_a_part_of_the_entrys_first_step(tiny, floor):
    report = generate(tiny, "--refresh-floor", floor)
    due, first = [], None
    for step in report["steps"]:
        first = step["kept_mass"] if first is None else first
        if step["kept_mass"] < floor * first and step["step"] < 7:
            due.append(step["step"] + 1)
            first = None
    assert [refresh["step"] for refresh in report["refreshes"]] == due
    assert floor > 1e-9 or due == []


def test_equal_runs_refresh_to_equal_tokens_whatever_the_threads(tiny):
    one, four = (generate(tiny, "--refresh-every", 2, "--threads", threads) for threads in (1, 4))
    assert one["steps"] == four["steps"]
    assert [r["mass"] for r in one["refreshes"]] == [r["mass"] for r in four["refreshes"]]
    text = run("generate", *tiny.args(*DECODE[:-1], "--refresh-every", 2))
    assert text.code == 0 and text.text == one["text"] + "\n"


@pytest.mark.parametrize("flags,code,said", [
    (("--cache", "none", "--refresh-every", 2), 3,
     "refresh_every, refresh_floor: expected 0 without a cache"),
    (("--cache", "none", "--refresh-floor", 0.5), 3, "expected 0 without a cache"),
    (("--refresh-every", -1), 2, "--refresh-every"),
    (("--refresh-floor", 1.5), 2, "--refresh-floor: expected a number from 0 to 1"),
    (("--refresh-floor", "nan"), 2, "--refresh-floor: expected a number from 0 to 1"),
])
def test_what_cannot_be_refreshed_is_refused(tiny, flags, code, said):
    failed = run("generate", *tiny.args(*DECODE, *flags))
    assert failed.code == code and said in failed.error


def test_evaluate_refreshes_every_cell_as_generate_does(tiny, tmp_path):
    flags = ("--gen-length", 8, "--budgets", 4, "--caches", "none,full,maskkv", "--refresh-every", 3)
    given = run("generate", *tiny.args("--gen-length", 8, "--budget", 4, "--refresh-every", 3,
                                       "--json")).json
    record = json.loads(tiny.questions.read_text().splitlines()[0])
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({**record, "answer": given["text"]}) + "\n")
    args = ("evaluate", "--model", TINY, "--profile", tiny.profile, "--questions", questions, *flags)
    report = validated("evaluate", run(*args, "--json").json)
    assert (report["refresh_every"], report["refresh_floor"]) == (3, 0)
    none, full, compressed = report["cells"]
    assert none["refreshes"] == 0 and none["refresh_seconds"] == 0
    assert full["refreshes"] == (full["steps"] - 1) // 3 and full["refresh_seconds"] > 0
    assert compressed["refreshes"] == len(given["refreshes"]) > 0
    assert compressed["steps"] == len(given["steps"]) and compressed["outcomes"] == "1"
    # Timed one by one, the cells are the same.
    alone = run(*args, "--rules", "low_confidence", "--json").json["cells"]
    for one, other in zip(alone, report["cells"], strict=True):
        assert {**one, "seconds": None, "refresh_seconds": 0} == {**other, "refresh_seconds": 0}
