# SPDX-License-Identifier: Apache-2.0
"""docs/errors.md lists every reason that our code makes and that the API's comments name."""

from pathlib import Path

import error_table
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def text():
    return (ROOT / "docs/errors.md").read_text(encoding="utf-8")


def test_rows_are_well_formed(text):
    rows = error_table.read(text)
    assert len(rows) > 40
    assert [row for row in rows if row.code not in error_table.CODES] == []
    assert [row for row in rows if row.retry not in error_table.RETRY] == []
    assert [row for row in rows if not (row.when and row.todo)] == []
    reasons = [row.reason for row in rows]
    assert len(set(reasons)) == len(reasons), "a reason stands for one code"


def test_every_code_has_a_row_of_its_own_name(text):
    assert {code for code in error_table.CODES if (code, code) not in error_table.pairs(text)} == {
        "UNAUTHENTICATED"  # always with a reason
    }


def test_every_reason_that_a_source_makes_is_listed(text):
    known = error_table.pairs(text)
    found = {
        (name, pair)
        for name, source in error_table.sources(ROOT)
        for pair in error_table.made_in(source)
    }
    assert len(found) > 60, "the sources were not found"
    assert sorted((name, pair) for name, pair in found if pair not in known) == []


def test_every_reason_that_the_api_names_is_listed(text):
    known = error_table.pairs(text)
    found = {
        (name, pair)
        for name, proto in error_table.protos(ROOT)
        for pair in error_table.named_in_proto(proto)
    }
    assert len(found) > 15, "the protos were not found"
    assert sorted((name, pair) for name, pair in found if pair not in known) == []
    reasons = {reason for _, reason in known}
    protos = dict(error_table.protos(ROOT))
    values = set().union(*map(error_table.enum_values, protos.values()))
    bare = {
        (name, reason)
        for name, proto in protos.items()
        for reason in error_table.bare_in_proto(proto, values)
    }
    assert len(bare) > 15
    assert sorted((name, reason) for name, reason in bare if reason not in reasons) == []


def test_what_is_read_of_a_source_and_of_a_comment():
    source = 'MakeError(absl::StatusCode::kNotFound,\n    "HANDLE_UNKNOWN", "x")'
    assert error_table.made_in(source) == {("NOT_FOUND", "HANDLE_UNKNOWN")}
    either = 'absl::StatusCode::kResourceExhausted,\n  own ? "QUOTA_EXCEEDED" : "CACHE_FULL"'
    assert error_table.made_in(either) == {
        ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"),
        ("RESOURCE_EXHAUSTED", "CACHE_FULL"),
    }
    helper = (
        "absl::Status Down(std::string_view reason, std::string_view message) {\n"
        "  return MakeError(absl::StatusCode::kUnavailable, reason, message);\n"
        "}\n"
        'if (a) return Down("CACHE_DOWN", "x");\n'
        'return Down(\n    "PREFILL_DOWN", "x");\n'
        'return Up("BAD_STOP", "x");\n'
    )
    assert error_table.made_in(helper) == {
        ("UNAVAILABLE", "CACHE_DOWN"),
        ("UNAVAILABLE", "PREFILL_DOWN"),
    }
    comment = (
        "  // NOT_FOUND (HANDLE_UNKNOWN,\n"
        "  // LEASE_UNKNOWN), ABORTED (EPOCH_MOVED: the daemon restarted).\n"
    )
    assert error_table.named_in_proto(comment) == {
        ("NOT_FOUND", "HANDLE_UNKNOWN"),
        ("NOT_FOUND", "LEASE_UNKNOWN"),
        ("ABORTED", "EPOCH_MOVED"),
    }
    comment = "  // Refused with a canvas\n  // (BAD_STOP), not by CACHE_NONE (CACHE_NONE).\n"
    enum = "  CACHE_NONE = 2;\n"
    assert error_table.bare_in_proto(comment, error_table.enum_values(enum)) == {"BAD_STOP"}
