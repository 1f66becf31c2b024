# SPDX-License-Identifier: Apache-2.0
"""The golden tests of the engine on cases that are made here: they are in no committed file, which
keeps tests/data/golden small. Filling in; seeded rules with what filters their predictions; on the embedded models every decoding rule, mixed masks and
growing canvases."""

import os
import re
import subprocess

import cli_runs
import pytest

from maskkv_oracle import golden, golden_cases, golden_refresh, golden_variable


def engine_passes(files, folder, which):
    """How many of the golden tests of these files the engine passes; fails if there is one it does not."""
    for kind in ("cases", "refresh", "variable"):  # read before the filter is
        (folder / kind).mkdir()
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    binary = cli_runs.binary().resolve().parents[1] / "tests" / "core_engine_golden_test"
    done = subprocess.run([binary, f"--gtest_filter={which}"], capture_output=True, text=True,
                          timeout=300, env=os.environ | {"MASKKV_GOLDEN": str(folder)})
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return int(re.search(r"\[  PASSED  \] (\d+) tests", done.stdout).group(1))


def decided(data):
    """Share of the steps that no rounding could decide otherwise: only they are compared."""
    clear, unclear = data.count(b'"decided":true'), data.count(b'"decided":false')
    return clear / (clear + unclear)


@pytest.fixture(scope="module")
def infill():
    return golden.infill_cases()


@pytest.fixture(scope="module")
def rules():
    return golden.embedded_rule_cases()


def test_the_engine_fills_in_as_the_oracle_does(infill, tmp_path):
    passed = engine_passes(infill, tmp_path, "*/GoldenTest.*:*/GoldenRefreshTest.*")
    cases, refreshed = len(golden_cases.INFILL), len(golden_refresh.INFILL)
    assert cases >= 15 and refreshed >= 2 and passed == 3 * cases + refreshed
    assert decided(b"".join(infill.values())) > 0.95


def test_seeded_rules_top_p_and_top_k_are_the_oracles(tmp_path):
    files = golden.seeded_cases()
    passed = engine_passes(files, tmp_path, "*/GoldenTest.*")
    assert passed == 3 * len(golden_cases.SEEDED) >= 27
    shares = {name: decided(data) for name, data in files.items() if name.endswith(".json")}
    assert min(shares.values()) > 0.6 and sum(shares.values()) / len(shares) > 0.9, shares


def test_every_rule_on_the_embedded_models_is_the_oracles(rules, tmp_path):
    passed = engine_passes(rules, tmp_path, "*/GoldenTest.*")
    assert passed == 3 * len(golden_cases.EMBEDDED) * len(golden_cases.EMBEDDED_RULES) * 2 >= 132
    cases = {name: data for name, data in rules.items() if name.endswith(".json")}
    shares = {name.split("/")[1]: decided(data) for name, data in cases.items()}
    print(shares)
    # Trained models are as sure of one end token as of another; what orders them is left out.
    assert sum(shares.values()) / len(shares) > 0.7, shares
    for rule in golden_cases.EMBEDDED_RULES:
        of_rule = [share for name, share in shares.items() if f"-{rule.replace('_', '-')}-" in name]
        assert len(of_rule) == 4 and min(of_rule) > 0, (rule, of_rule)


def test_mixed_masks_and_growing_canvases_of_the_embedded_models_are_the_oracles(tmp_path):
    files = golden.embedded_variable_cases()
    data = b"".join(files.values())
    assert data.count(b'"grown":4') >= 4 and len(re.findall(rb'"mixed":\[\d', data)) >= 4
    assert engine_passes(files, tmp_path, "*/GoldenVariableTest.*") == 2 * len(files) == 16
