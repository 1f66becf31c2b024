# SPDX-License-Identifier: Apache-2.0
"""Journals of finished work, and files of others."""

import pytest

from maskkv_eval import journal


def test_a_line_that_was_not_finished_is_cut_off(tmp_path):
    path = tmp_path / "j.jsonl"
    with journal.Journal(path) as first:
        assert first.records == []
        first.append({"a": 1})
        first.append({"b": "é\u2028"})
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with journal.Journal(path) as again:
            lines = whole[:cut].count(b"\n")
            assert [number for number, _ in again.records] == list(range(1, lines + 1))
            again.append({"c": 3})
        with journal.Journal(path) as again:
            expected = [{"a": 1}, {"b": "é\u2028"}][:lines] + [{"c": 3}]
            assert [record for _, record in again.records] == expected


@pytest.mark.parametrize("line, complaint", [
    (b"{", "expected a JSON object, found none"),
    (b"\xff", "expected a JSON object, found none"),
    (b"[1]", "expected a JSON object, found list"),
])
def test_a_broken_line_before_the_last_is_named(tmp_path, line, complaint):
    path = tmp_path / "j.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b"\n")
    with pytest.raises(SystemExit, match=f"j.jsonl:2: {complaint}"):
        journal.Journal(path)


def test_a_journal_has_one_writer(tmp_path):
    path = tmp_path / "j.jsonl"
    with journal.Journal(path):
        with pytest.raises(SystemExit, match="expected no other run to write it"):
            journal.Journal(path)
    journal.Journal(path).close()


FIELDS = {"text": str, "names": list}


def test_files_are_read_with_their_line_numbers(tmp_path):
    path = tmp_path / "f.jsonl"
    path.write_text('{"text": "a", "names": []}\n\n{"text": "b", "names": ["c"], "more": 1}\n')
    assert [(n, r["text"]) for n, r in journal.read(path, FIELDS)] == [(1, "a"), (3, "b")]


@pytest.mark.parametrize("line, complaint", [
    ("{", ":2: expected a JSON object"),
    ("7", ":2: expected a JSON object, found int"),
    ('{"text": "a"}', ":2: field names: expected list, found nothing"),
    ('{"text": 1, "names": []}', ":2: field text: expected str, found int"),
    ('{"text": "a", "names": [1]}', ":2: field names: expected a list of strings"),
])
def test_a_malformed_line_is_named_with_its_field(tmp_path, line, complaint):
    path = tmp_path / "f.jsonl"
    path.write_text('{"text": "a", "names": []}\n' + line + "\n")
    with pytest.raises(SystemExit, match=complaint):
        journal.read(path, FIELDS)


def test_files_without_lines_or_that_are_not_there_are_named(tmp_path):
    (tmp_path / "empty").write_text("\n\n")
    with pytest.raises(SystemExit, match="empty: expected at least one line, found none"):
        journal.read(tmp_path / "empty", FIELDS)
    with pytest.raises(SystemExit, match="missing: No such file"):
        journal.read(tmp_path / "missing", FIELDS)
