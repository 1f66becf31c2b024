# SPDX-License-Identifier: Apache-2.0
"""The committed golden files are what the oracle computes today."""

import json
import pathlib

import pytest

from maskkv_oracle import golden, named

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "data" / "golden"


@pytest.mark.parametrize("part", golden.PARTS)
def test_golden_files_are_what_the_oracle_computes(part):
    stale = golden.check(FOLDER, [part])
    command = "PYTHONPATH=python python3 -m maskkv_oracle.golden --out tests/data/golden"
    assert not stale, "\n".join([f"regenerate with: {command}", *stale])


def test_golden_files_are_small():
    assert sum(p.stat().st_size for p in FOLDER.rglob("*") if p.is_file()) < 4 * 2**20


def test_a_changed_integer_or_a_moved_float_is_seen():
    before = b'{"kept": [1, 2], "mass": 0.5, "margins": {"a": 0.5}}'
    assert golden.compare("x.json", before, before) is None
    assert "kept.1" in golden.compare("x.json", before.replace(b"2]", b"3]"), before)
    assert "mass" in golden.compare("x.json", before.replace(b"0.5,", b"0.50001,"), before)
    assert golden.compare("x.json", before.replace(b'"a": 0.5', b'"a": 0.5001'), before) is None


def test_every_policy_is_in_the_files_and_nearly_every_decision_is_clear():
    for path in (FOLDER / "policies").iterdir():
        runs = json.loads(path.read_text())["runs"]
        assert set(named.POLICIES) <= {run["policy"] for run in runs}
        decided = [d for run in runs for layer in run["decided"] for d in layer]
        assert sum(decided) > 0.98 * len(decided)


def test_no_rounding_chooses_other_experts():
    seen = 0
    for path in (FOLDER / "cases").glob("moe*/case.json"):
        case = json.loads(path.read_text())
        assert case["routing"]["margin"] > 2 * case["routing"]["bound"]
        assert all(step["decided"] for step in case["steps"])
        seen += 1
    assert seen >= 5


def test_the_cases_about_eos_are_about_eos():
    def answer(name):
        return json.loads((FOLDER / "cases" / name / "case.json").read_text())

    for name in ("deep-eos", "mha-stop"):
        case = answer(name)
        assert case["answer"]["finish_reason"] == "stop"
        assert set(case["params"]["stop_ids"]) & set(case["answer"]["canvas"])
    eos = answer("deep-eos")["params"]["stop_ids"][0]
    suppressed = answer("deep-suppress-eos")["answer"]
    assert eos not in suppressed["canvas"] and suppressed["finish_reason"] == "length"
