# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the command line's tests: a document, a profile, questions."""

import json
from dataclasses import dataclass

import pytest

import cli_runs


@dataclass(frozen=True)
class Tiny:
    """Files for runs of the embedded model. What it answers is never asserted."""

    document: object
    question: str
    profile: object
    questions: object
    words: int

    def args(self, *more):
        """Flags of an offline run over the document."""
        return ("--model", cli_runs.TINY, "--profile", self.profile, "--document", self.document,
                "-q", self.question, *more)

    def generate(self, *more, **kwargs):
        return cli_runs.run("generate", *self.args("--gen-length", 8, *more), **kwargs)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    records = [json.loads(line) for line in
               (cli_runs.TINY / "calibration.jsonl").read_text().splitlines()[:4]]
    document, questions = folder / "document.txt", folder / "questions.jsonl"
    document.write_text(records[0]["document"] + "\n")
    questions.write_text("".join(json.dumps(record) + "\n" for record in records))
    profile = folder / "profile.json"
    made = cli_runs.run("calibrate", "--model", cli_runs.TINY, "--prompts",
                        cli_runs.TINY / "calibration.jsonl", "--samples", 4, "--output", profile)
    assert made.code == 0, made.err
    return Tiny(document, records[0]["question"], profile, questions,
                len(records[0]["document"].split()))


@pytest.fixture
def ids_file(tmp_path):
    """ids_file(value) is a file for --prompt-ids; strings are written as they are."""

    def write(value, name="ids.json"):
        path = tmp_path / name
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return path

    return write
