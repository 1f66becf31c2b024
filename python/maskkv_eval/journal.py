# SPDX-License-Identifier: Apache-2.0
"""JSON lines: files of others, with errors that name the line, and a journal of finished work."""

import fcntl
import json
import os
import pathlib


class Journal:
    """A file of JSON objects, one a line, that survives being killed in the middle of a line.

    Opening it reads what is there and cuts off a last line that was not finished. One process at a
    time: SystemExit while another has it open.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.records = []  # what was there, as (line number, object)
        self._file = open(self.path, "a", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise SystemExit(f"{self.path}: expected no other run to write it, found one") from None
        os.truncate(self.path, self._read())

    def _read(self):
        """Fills records; returns the bytes that whole lines take."""
        data = self.path.read_bytes()
        end = data.rfind(b"\n") + 1
        for number, line in enumerate(data[:end].split(b"\n")[:-1], 1):
            self.records.append((number, parse(line, f"{self.path}:{number}")))
        return end

    def append(self, record):
        self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self):
        self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def parse(line, where):
    """The object of one line; SystemExit says where and what is wrong."""
    try:
        record = json.loads(line)
    except ValueError as error:  # no JSON, or no UTF-8
        raise SystemExit(f"{where}: expected a JSON object, found none: {error}") from None
    if not isinstance(record, dict):
        raise SystemExit(f"{where}: expected a JSON object, found {type(record).__name__}")
    return record


def read(path, fields):
    """The (line number, object) pairs of a JSON-lines file, empty lines left out.

    fields: name -> type. Every object must have them, a list must hold strings; SystemExit names
    file, line and field.
    """
    try:
        lines = pathlib.Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise SystemExit(f"{path}: {error.strerror}") from None
    records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        record = parse(line, where)
        for name, kind in fields.items():
            _check(record, name, kind, where)
        records.append((number, record))
    if not records:
        raise SystemExit(f"{path}: expected at least one line, found none")
    return records


def _check(record, name, kind, where):
    if name not in record:
        raise SystemExit(f"{where}: field {name}: expected {kind.__name__}, found nothing")
    value = record[name]
    if not isinstance(value, kind):
        raise SystemExit(f"{where}: field {name}: expected {kind.__name__}, "
                         f"found {type(value).__name__}")
    if kind is list and not all(isinstance(item, str) for item in value):
        raise SystemExit(f"{where}: field {name}: expected a list of strings")
