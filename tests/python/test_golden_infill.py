# SPDX-License-Identifier: Apache-2.0
"""The engine fills in as the oracle does: the golden tests of the engine, on cases made here.

They are in no committed file, which keeps tests/data/golden small.
"""

import os
import re
import subprocess

import cli_runs
import pytest

from maskkv_oracle import golden, golden_cases, golden_refresh


@pytest.fixture(scope="module")
def files():
    return golden.infill_cases()


def test_the_engine_fills_in_as_the_oracle_does(files, tmp_path):
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    binary = cli_runs.binary().resolve().parents[1] / "tests" / "core_engine_golden_test"
    done = subprocess.run(
        [binary, "--gtest_filter=*/GoldenTest.*:*/GoldenRefreshTest.*"], capture_output=True,
        text=True, timeout=300, env=os.environ | {"MASKKV_GOLDEN": str(tmp_path)})
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    passed = int(re.search(r"\[  PASSED  \] (\d+) tests", done.stdout).group(1))
    cases, refreshed = len(golden_cases.INFILL), len(golden_refresh.INFILL)
    assert cases >= 15 and refreshed >= 2 and passed == 3 * cases + refreshed


def test_nearly_every_step_of_these_cases_is_clear(files):
    # Otherwise the engine could go another way, and nothing would be compared.
    text = b"".join(files.values())
    assert text.count(b'"decided":true') > 0.95 * (
        text.count(b'"decided":true') + text.count(b'"decided":false'))
