# SPDX-License-Identifier: Apache-2.0
"""scripts/eval's program over a stand-in for `maskkv evaluate`: chunks, resuming, gathering."""

import json
import sys

import pytest

from maskkv_eval import embedded, tables

# Answers as maskkv evaluate does: a question is right if its number is even. Writes each call down.
FAKE = f"""#!{sys.executable}
import json, pathlib, sys
flags = dict(zip(sys.argv[2::2], sys.argv[3::2]))
here = pathlib.Path(__file__).parent
questions = [json.loads(line) for line in open(flags["--questions"])]
with open(here / "calls", "a") as calls:
    calls.write(flags["--model"] + " " + " ".join(q["id"] for q in questions) + "\\n")
if (here / "fail").exists() and (here / "fail").read_text() in [q["id"] for q in questions]:
    sys.exit(3)
cells = []
for policy in flags["--policies"].split(","):
    for budget in flags["--budgets"].split(","):
        outcomes = "".join("01"[int(q["id"].split("-")[-1]) % 4 < 2] for q in questions)
        cells.append({{"policy": policy, "budget": int(budget), "outcomes": outcomes,
                      "kept_mass": 1 / len(questions)}})
print(json.dumps({{"cells": cells}}))
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "CHUNK", 4)
    (tmp_path / "bin").write_text(FAKE)
    (tmp_path / "bin").chmod(0o755)
    return tmp_path


def arguments(folder, *more):
    return embedded.parser().parse_args(
        ["--bin", str(folder / "bin"), "--policies", "maskkv,snapkv", "--budgets", "8,16",
         "--questions", "10", "--length", "120", "--json", str(folder / "out.json"), *more])


def calls(folder):
    return (folder / "calls").read_text().splitlines()


def test_chunks_are_gathered_in_order(fake):
    embedded.run(arguments(fake, "--models", "one,two"))
    cells = json.loads((fake / "out.json").read_text())["cells"]
    assert {(c["model"], c["policy"], c["budget"], c["task"]) for c in cells} == {
        (m, p, b, t) for m in ("one", "two") for p in ("maskkv", "snapkv") for b in (8, 16)
        for t in ("single", "two_hop")} and len(cells) == 16
    # Kinds alternate: 0, 2, 4, 6, 8 are of one, 1, 3, 5, 7, 9 of the other; right: i % 4 < 2.
    assert all(c["right"] == [1, 0, 1, 0, 1] for c in cells)
    # Two, two and one questions a kind in chunks of four, four and two.
    assert all(c["kept_mass"] == pytest.approx((2 / 4 + 2 / 4 + 1 / 2) / 5) for c in cells)
    assert len(calls(fake)) == 6 and calls(fake)[0] == (
        "models/one test-1-0 test-1-1 test-1-2 test-1-3")
    assert not (fake / "out.json.partial.jsonl").exists()


def test_an_interrupted_run_goes_on_without_asking_again(fake):
    args = arguments(fake, "--models", "one")
    (fake / "fail").write_text("test-1-8")
    with pytest.raises(SystemExit, match="maskkv evaluate: exit code 3"):
        embedded.run(args)
    partial = fake / "out.json.partial.jsonl"
    assert partial.read_bytes().count(b"\n") == 2
    with open(partial, "ab") as file:
        file.write(b'{"arguments": {"bud')  # killed while writing
    with pytest.raises(SystemExit):  # once more, so that the cut line has been appended to
        embedded.run(args)
    (fake / "fail").unlink()
    embedded.run(args)
    asked = [line.split()[1] for line in calls(fake)]
    assert asked == ["test-1-0", "test-1-4", "test-1-8", "test-1-8", "test-1-8"]
    resumed = (fake / "out.json").read_text()
    embedded.run(args)
    assert (fake / "out.json").read_text() == resumed


def test_a_partial_file_of_other_arguments_is_refused(fake):
    (fake / "fail").write_text("test-1-8")
    with pytest.raises(SystemExit):
        embedded.run(arguments(fake, "--models", "one"))
    with pytest.raises(SystemExit, match=r"partial.jsonl:1: expected a run with the same argum"):
        embedded.run(arguments(fake, "--models", "one", "--seed", "2"))


def test_page_and_plot_are_of_the_cells_and_name_the_command(fake, monkeypatch):
    flags = ["--bin", str(fake / "bin"), "--policies", "maskkv,snapkv", "--budgets", "8,16",
             "--models", "one", "--questions", "4", "--length", "120",
             "--json", str(fake / "out.json")]
    monkeypatch.setattr("sys.argv", ["embedded", *flags])
    embedded.main()
    cells = (fake / "out.json").read_text()
    assert sorted(path.name for path in fake.iterdir()) == ["bin", "calls", "out.json"]
    flags += ["--markdown", str(fake / "page.md"), "--plot", str(fake / "plot.png")]
    monkeypatch.setattr("sys.argv", ["embedded", *flags])
    embedded.main()
    assert (fake / "out.json").read_text() == cells
    page = (fake / "page.md").read_text()
    assert f"`scripts/eval {' '.join(flags)}`" in page and "![accuracy by budget](plot.png)" in page
    assert "\n".join(tables.accuracy_table(json.loads(cells)["cells"][::2])) in page
    assert (fake / "plot.png").read_bytes().startswith(b"\x89PNG")
