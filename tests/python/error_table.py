# SPDX-License-Identifier: Apache-2.0
"""The table of docs/errors.md, and the reasons that sources and protos name."""

import re
from pathlib import Path
from typing import NamedTuple

HEAD = "| code | reason | when | retry | what to do |"
RETRY = {"no", "yes", "RetryInfo", "anew"}
CODES = (
    "CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS"
    " PERMISSION_DENIED RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED"
    " INTERNAL UNAVAILABLE DATA_LOSS UNAUTHENTICATED"
).split()

_MADE = re.compile(r'StatusCode::k(\w+),\s*"([A-Z][A-Z0-9_]*)"')
_START = re.compile(r"Errors of flags and files at the start.*?: (.*?) \(all (\w+)\)\.")
# "RESOURCE_EXHAUSTED (QUEUE_FULL, with RetryInfo; CACHE_FULL ...)" in a comment.
_PROTO = re.compile(rf"\b({'|'.join(CODES)}) \(([^()]*)\)")


class Row(NamedTuple):
    code: str
    reason: str
    when: str
    retry: str
    todo: str


def read(text):
    lines = text.splitlines()
    start = lines.index(HEAD) + 2
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append(Row(*(cell.strip() for cell in line.strip("|").split("|"))))
    return rows


def pairs(text):
    """(code, reason) of every documented reason, those of the start included."""
    reasons, code = _START.search(text).groups()
    found = {(row.code, row.reason) for row in read(text)}
    return found | {(code, reason) for reason in reasons.split(", ")}


def made_in(source):
    """(code, reason) of errors that a C++ source makes with both as literals."""
    return {
        (re.sub(r"(?<=[a-z])(?=[A-Z])", "_", code).upper(), reason)
        for code, reason in _MADE.findall(source)
    }


def named_in_proto(text):
    comments = re.sub(r"\s*\n\s*//\s*", " ", text)
    return {
        (code, reason)
        for code, inside in _PROTO.findall(comments)
        for reason in re.findall(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b|\bCHECKSUM\b", inside)
    }


def sources(root):
    for top in ("core", "services"):
        for path in sorted(Path(root, top).rglob("*.cc")):
            yield path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")


def protos(root):
    for path in sorted(Path(root, "protos/maskkv").rglob("*.proto")):
        yield path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")
