# SPDX-License-Identifier: Apache-2.0
"""docs/metrics.md is what the declarations say, and what the processes export is in it."""

import pathlib
import re
import subprocess

import cli_runs
import metrics
import pytest
import stack as stacks

DOCUMENT = cli_runs.ROOT / "docs/metrics.md"


def documented():
    """name -> type."""
    text = DOCUMENT.read_text(encoding="utf-8")
    return dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", text, re.MULTILINE))


def test_the_document_is_current():
    tool = stacks.binary("maskkv-metrics-doc")
    done = subprocess.run([str(tool)], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b""), "a declaration breaks a rule"
    current = DOCUMENT.read_bytes() == done.stdout
    assert current, f"{pathlib.Path(tool).name} > docs/metrics.md brings it up to date"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stack")
    with stacks.Stack(folder, model=cli_runs.GOLDEN / "mha") as stack:
        return {name: metrics.text(process.metrics) for name, process in stack.processes.items()}


@pytest.mark.parametrize("name", stacks.NAMES)
def test_what_a_process_exports_is_documented(pages, name):
    exported = re.findall(r"^# TYPE (\S+) (\w+)$", pages[name], re.MULTILINE)
    assert len(exported) > 10
    known = documented()
    # The HTTP exposer of prometheus-cpp counts its own scrapes; those names are not ours.
    exported = [(metric, kind) for metric, kind in exported if not metric.startswith("exposer_")]
    assert [(metric, kind) for metric, kind in exported if known.get(metric) != kind] == []
