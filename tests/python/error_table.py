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

_REASON = r'"([A-Z][A-Z0-9_]*)"'
_MADE = re.compile(rf"StatusCode::k(\w+),\s*{_REASON}")
# One of two: StatusCode::kCode, condition ? "A" : "B".
_EITHER = re.compile(rf"StatusCode::k(\w+),\s*[^,;?]+\?\s*{_REASON}\s*:\s*{_REASON}")
# A helper whose first argument is the reason, and its body to the first line that is only "}".
_HELPER = re.compile(r"^absl::Status (\w+)\(std::string_view reason\b.*?^\}$", re.M | re.S)
_HELPS = re.compile(r"StatusCode::k(\w+),\s*reason\b")
_START = re.compile(r"Errors of flags and files at the start.*?: (.*?) \(all (\w+)\)\.")
# "RESOURCE_EXHAUSTED (QUEUE_FULL, with RetryInfo; CACHE_FULL ...)" in a comment.
_PROTO = re.compile(rf"\b({'|'.join(CODES)}) \(([^()]*)\)")
# "must be empty (BAD_STOP)" in a comment: nothing but one reason, which has a code of its own.
_BARE = re.compile(r"\(([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)\)")


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
    """(code, reason) of errors that a C++ source makes of literals, by a helper of its own too."""
    found = set(_MADE.findall(source))
    for code, *reasons in _EITHER.findall(source):
        found |= {(code, reason) for reason in reasons}
    for helper in _HELPER.finditer(source):
        for code in _HELPS.findall(helper[0]):
            reasons = re.findall(rf"\b{helper[1]}\(\s*{_REASON}", source)
            found |= {(code, reason) for reason in reasons}
    return {
        (re.sub(r"(?<=[a-z])(?=[A-Z])", "_", code).upper(), reason) for code, reason in found
    }


def _joined(text):
    return re.sub(r"\s*\n\s*//\s*", " ", text)


def enum_values(text):
    return set(re.findall(r"^\s+([A-Z][A-Z0-9_]*) = \d+;", text, re.MULTILINE))


def bare_in_proto(text, values):
    """Reasons that comments name alone in brackets. Values of enums, named so too, are none."""
    return set(_BARE.findall(_joined(text))) - values


def named_in_proto(text):
    return {
        (code, reason)
        for code, inside in _PROTO.findall(_joined(text))
        for reason in re.findall(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b|\bCHECKSUM\b", inside)
    }


def sources(root):
    for top in ("core", "services"):
        for path in sorted(Path(root, top).rglob("*.cc")):
            yield path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")


def protos(root):
    for path in sorted(Path(root, "protos/maskkv").rglob("*.proto")):
        yield path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")
