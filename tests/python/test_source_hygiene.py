# SPDX-License-Identifier: Apache-2.0
"""Rules about single files: licence line, length, header guards, notes, paths, white space, and
the comments of protos."""

from pathlib import Path

import pytest
import source_hygiene

ROOT = Path(__file__).resolve().parents[2]
CC = f"// {source_hygiene.SPDX}\n"
PY = f"# {source_hygiene.SPDX}\n"


@pytest.fixture(scope="module")
def files():
    found = source_hygiene.read_tree(ROOT)
    assert len(found) > 100, "the tree was not found"
    assert {"CMakeLists.txt", "core/policy/level.h", "tests/python/source_hygiene.py"} <= set(found)
    return found


@pytest.mark.parametrize("check", source_hygiene.CHECKS, ids=lambda check: check.__name__)
def test_the_tree_obeys(files, check):
    assert [line for path, text in files.items() for line in check(path, text)] == []


# Each check on the smallest example that breaks its rule, and on the nearest one that does not.

GUARD = "#ifndef MASKKV_CORE_BASE_A_B_H_\n#define MASKKV_CORE_BASE_A_B_H_\n"
END = "#endif  // MASKKV_CORE_BASE_A_B_H_\n"
TO_DO = "TO" + "DO"
HOME = "/ho" + "me/"

BAD = [
    ("licence", "core/a.cc", "int a;\n"),
    ("licence", "core/a.cc", "\n" + CC),
    ("licence", "core/a.cc", PY),
    ("licence", "core/CMakeLists.txt", CC),
    ("licence", "python/a.py", '"""Text."""\n'),
    ("licence", "python/empty.py", ""),
    ("licence", "scripts/a", "#!/bin/sh\nexit 0\n"),
    ("length", "core/a.h", "\n" * 201),
    ("length", "core/a.cc", "\n" * 401),
    ("length", "python/a.py", "\n" * 401),
    ("header_guard", "core/base/a_b.h", CC + "#pragma once\n"),
    ("header_guard", "core/base/a_c.h", CC + GUARD + END),
    ("header_guard", "core/base/a_b.h", CC + GUARD + "#endif\n"),
    ("header_guard", "core/base/a_b.h", CC + "#include <set>\n" + GUARD + END),
    ("notes", "core/a.cc", f"// {TO_DO}\n"),
    ("notes", "core/a.cc", f"// {TO_DO}: later\n"),
    ("notes", "docs/a.md", f"text {TO_DO}(me) make it faster for long prompts\n"),
    ("notes", "core/a.cc", "// FIX" "ME\n"),
    ("machine_paths", "docs/a.md", f"see {HOME}somebody/file\n"),
    ("machine_paths", "scripts/a.sh", "cd /wo" "rk/main\n"),
    ("machine_paths", "core/a.cc", '"../sha' 'red/spec"\n'),
    ("white_space", "core/a.cc", "int a;"),
    ("white_space", "core/a.cc", "int a; \n"),
    ("white_space", "core/a.cc", "\tint a;\n"),
    ("commented", "protos/a.proto", "// Text.\nmessage A {\n  int64 a = 1;\n}\n"),
    ("commented", "protos/a.proto", "  // Both.\n  A a = 1;\n  repeated B b = 2 [x = true];\n"),
    ("commented", "protos/a.proto", "  int64 a = 1;  // Text.\n  map<int32, x.B> b = 2;\n"),
    ("commented", "protos/a.proto", "  // Text.\n\n  int64 a = 1;\n"),
    ("commented", "protos/a.proto", "enum E {  // Text.\n  E_UNSPECIFIED = 0;\n}\n"),
    ("commented", "protos/a.proto", "message A {}\n"),
    ("commented", "protos/a.proto", "// Text.\nservice A {\n  rpc B(C) returns (stream D);\n}\n"),
]

GOOD = [
    ("licence", "core/a.cc", CC + "int a;\n"),
    ("licence", "scripts/a", "#!/usr/bin/env bash\n" + PY),
    ("licence", "docs/a.md", "# Title\n"),
    ("licence", "tests/data/a.json", "{}\n"),
    ("length", "core/a.h", "\n" * 200),
    ("length", "core/a.cc", "\n" * 400),
    ("length", "docs/a.md", "\n" * 1000),
    ("header_guard", "core/base/a_b.h", CC + "// Text.\n" + GUARD + "\nint a;\n\n" + END),
    ("header_guard", "core/base/a_b.cc", CC),
    ("notes", "core/a.cc", f"// {TO_DO}: drop this once Debian ships Abseil 2023\n"),
    ("notes", "core/a.cc", "int mastodon;\n"),
    ("machine_paths", "docs/a.md", "https://host/home/page and /tmp/x and ./work/x\n"),
    ("white_space", "core/a.cc", "  int a;\n"),
    ("white_space", "core/empty.cc", ""),
    ("commented", "protos/a.proto", "// A.\nmessage A {\n  B b = 1;  // B.\n  // C.\n  C c = 2;\n"),
    ("commented", "protos/a.proto", "  oneof form {\n    // Text.\n    A a = 1;\n  }\n"),
    ("commented", "core/a.cc", "  int a = 1;\n"),
]


@pytest.mark.parametrize(("check", "path", "text"), BAD)
def test_a_bad_example_is_found(check, path, text):
    found = getattr(source_hygiene, check)(path, text)
    assert len(found) == 1 and found[0].startswith(path)


@pytest.mark.parametrize(("check", "path", "text"), GOOD)
def test_a_good_example_is_not(check, path, text):
    assert getattr(source_hygiene, check)(path, text) == []


def test_every_check_has_a_bad_and_a_good_example():
    names = {check.__name__ for check in source_hygiene.CHECKS}
    assert {name for name, _, _ in BAD} == names
    assert {name for name, _, _ in GOOD} == names


def test_every_disabled_check_of_clang_tidy_has_its_reason():
    text = (ROOT / ".clang-tidy").read_text(encoding="utf-8")
    reasons, settings = text.split("---\n", 1)
    disabled = [line.strip(" ,-") for line in settings.splitlines() if line.startswith("  -")]
    disabled = [check for check in disabled if check not in ("*", "") and not check.startswith("{")]
    assert len(disabled) > 5
    assert [check for check in disabled if f"# {check}: " not in reasons] == []
    assert reasons.count(": ") >= len(disabled)
