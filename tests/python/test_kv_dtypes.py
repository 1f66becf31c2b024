# SPDX-License-Identifier: Apache-2.0
"""The page of scripts/kv-dtypes: bytes and accuracies side by side."""

import sys

from maskkv_eval import kv_dtypes

# int8 gets the first question wrong, others none.
FAKE = f"""#!{sys.executable}
import json, sys
flags = {{name: sys.argv[i + 1] for i, name in enumerate(sys.argv[:-1])}}
asked = [json.loads(line) for line in open(flags["--questions"])]
cells = []
for budget in flags["--budgets"].split(","):
    outcomes = ["1"] * len(asked)
    if flags["--kv-dtype"] == "int8":
        outcomes[0] = "0"
    cells.append({{"policy": "maskkv", "budget": int(budget), "outcomes": "".join(outcomes),
                  "questions": len(asked), "correct": outcomes.count("1")}})
print(json.dumps({{"cells": cells}}))
"""


def test_a_pair_of_a_wide_head_takes_little_more_than_half_of_bf16():
    assert [kv_dtypes.pair_bytes(kv, 128) for kv in kv_dtypes.KV_DTYPES] == [1028, 516, 268]
    assert kv_dtypes.bytes_table([64])[-1] == "| 64 | 516 | 260 | 140 | 0.538 |"


def test_the_page_says_what_int8_changes(tmp_path):
    fake, out = tmp_path / "bin", tmp_path / "page.md"
    fake.write_text(FAKE)
    fake.chmod(0o755)
    kv_dtypes.main(["--questions", "4", "--length", "200", "--budgets", "8,32", "--models",
                    "tiny-llada", "--markdown", str(out), "--bin", str(fake)])
    page = out.read_text()
    row = next(line for line in page.splitlines() if line.startswith("| 8 |"))
    assert row.count("100.0 (51.0 to 100.0)") == 2 and "75.0 (30.1 to 95.4)" in row
    assert "-25.0 (-75.0 to +0.0) | 0 / 1, p = 1.00 |" in row
    assert "64 (tiny-llada)" in page and page.count("| 32 |") == 1
