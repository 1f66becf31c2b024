# SPDX-License-Identifier: Apache-2.0
"""Runs of the real maskkv binary, for the tests of the command line.

MASKKV_BIN names the binary or the folder that holds it; without it the release build's is taken.
"""

import functools
import json
import os
import pathlib
import subprocess
from dataclasses import dataclass

import jsonschema

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = ROOT / "models/tiny-llada"
GOLDEN = ROOT / "tests/data/golden/checkpoints"
TIMEOUT_S = 120


def binary():
    path = pathlib.Path(os.environ.get("MASKKV_BIN", "build/release/bin/maskkv"))
    path = path if path.is_absolute() else ROOT / path
    return path / "maskkv" if path.is_dir() else path


@dataclass(frozen=True)
class Result:
    code: int
    out: bytes
    err: bytes

    @property
    def text(self):
        return self.out.decode("utf-8")

    @property
    def json(self):
        assert self.code == 0, self.err.decode(errors="replace")
        assert self.out.count(b"\n") == 1 and self.out.endswith(b"\n"), "expected one line"
        return json.loads(self.out)

    @property
    def error(self):
        """The one line that a failed run wrote; nothing else was written."""
        assert self.out == b"", self.out[:200]
        text = self.err.decode("utf-8", errors="surrogateescape")
        assert text.endswith("\n") and text.count("\n") == 1, text
        assert text.startswith("maskkv: ") and len(text) > len("maskkv: x\n"), text
        return text


def run(*args, stdin=b"", **kwargs):
    done = subprocess.run([str(binary()), *map(os.fspath, map(_text, args))], input=stdin,
                          capture_output=True, timeout=TIMEOUT_S, check=False, **kwargs)
    return Result(done.returncode, done.stdout, done.stderr)


def _text(arg):
    return arg if isinstance(arg, (str, bytes, os.PathLike)) else str(arg)


@functools.cache
def validator(name):
    schema = json.loads((ROOT / f"docs/{name}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def validated(name, value):
    """`value` if it obeys docs/NAME.schema.json."""
    errors = [f"{e.json_path}: {e.message[:200]}" for e in validator(name).iter_errors(value)]
    assert not errors, errors
    return value


def config(directory):
    return json.loads((pathlib.Path(directory) / "config.json").read_text())


def stop_ids(directory):
    """The ids that end an answer: the configuration's eos and the tokenizer's end of turn."""
    ids = {config(directory)["eos_token_id"]}
    tokenizer = pathlib.Path(directory) / "tokenizer.json"
    if tokenizer.exists():
        added = json.loads(tokenizer.read_text())["added_tokens"]
        ids |= {token["id"] for token in added if token["content"] == "<|eot_id|>"}
    return ids
