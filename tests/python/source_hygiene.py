# SPDX-License-Identifier: Apache-2.0
"""Rules about single files that no compiler checks.

Every check takes a path (relative to the root, with '/') and a text, so that a test can hand it a
small bad example, and returns a list of complaints, each one line.
"""

import re
from pathlib import Path

SPDX = "SPDX-License-Identifier: Apache-2.0"
COMMENT = {".h": "//", ".inc": "//", ".cc": "//", ".cu": "//", ".proto": "//"}
COMMENT |= {".py": "#", ".sh": "#", ".cmake": "#"}
HEADER_LINES, SOURCE_LINES = 200, 400
_TEXT = {*COMMENT, ".md", ".json", ".toml", ".txt", ".yml", ".yaml", ".jsonl", ""}
_SKIPPED = {".git", ".venv", "build", "__pycache__", ".pytest_cache", ".ruff_cache"}
# Written so that this file does not accuse itself.
_NOTE = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX)\b(.*)")
_REASON = re.compile(r"^: (?:\S+\s+){3,}\S+")
_MACHINE_PATH = re.compile(
    r"(?<![\w.])/(?:ho" r"me|wo" r"rk|ro" r"ot|Us" r"ers|m" r"nt)/\w+|\.\./sha" r"red\b|\bsha" r"red/spec\b"
)
# A field or an enum's value, the beginning of a message, an enum or a service, an RPC.
_DECLARED = re.compile(
    r"\s*(?:(?:repeated |optional )?(?:[\w.]+(?:<[^>]*>)? )?(\w+) = -?\d+ *[;\[]"
    r"|(?:message|enum|service|rpc) (\w+))"
)


def read_tree(root):
    """path -> text of every text file that is ours, built and installed things left out."""
    files = {}
    for path in sorted(Path(root).rglob("*")):
        name = path.relative_to(root)
        if _SKIPPED & set(name.parts) or path.is_symlink() or not path.is_file():
            continue
        if name.parts[0] in ("shared",) or any(part.endswith(".egg-info") for part in name.parts):
            continue
        # Generated from the protos, checked to be current by a test of its own.
        if name.name.endswith(("_pb2.py", "_pb2_grpc.py", "_pb2.pyi")):
            continue
        # A checkpoint's own files have the format of their publisher.
        if path.suffix not in _TEXT or (name.parts[0] == "models" and path.suffix != ".md"):
            continue
        try:
            files[name.as_posix()] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
    return files


def comment_mark(path, text):
    """How a comment begins in a source of ours, None for what is no source."""
    name = Path(path)
    if name.name == "CMakeLists.txt":
        return "#"
    if name.suffix == "" and text.startswith("#!"):
        return "#"
    return COMMENT.get(name.suffix)


def licence(path, text):
    mark = comment_mark(path, text)
    if mark is None:
        return []
    lines = text.splitlines()
    if lines and lines[0].startswith("#!"):
        lines = lines[1:]
    if lines and lines[0] == f"{mark} {SPDX}":
        return []
    return [f"{path}: expected '{mark} {SPDX}' as the first line"]


def length(path, text):
    suffix, lines = Path(path).suffix, len(text.splitlines())
    most = HEADER_LINES if suffix == ".h" else SOURCE_LINES
    if suffix not in COMMENT or lines <= most:
        return []
    return [f"{path}: expected at most {most} lines, found {lines}"]


def header_guard(path, text):
    if Path(path).suffix != ".h":
        return []
    guard = "MASKKV_" + re.sub(r"[^A-Za-z0-9]", "_", path).upper() + "_"
    code = [line for line in text.splitlines() if line.strip() and not line.startswith("//")]
    want = [f"#ifndef {guard}", f"#define {guard}", f"#endif  // {guard}"]
    found = [*code[:2], *code[-1:]]
    return [] if found == want else [f"{path}: expected the header guard {guard}"]


def notes(path, text):
    """A note of something to be done says what and why, in four words at least, or is not made."""
    complaints = []
    for number, line in enumerate(text.splitlines(), 1):
        if (note := _NOTE.search(line)) and not _REASON.match(note[2]):
            complaints.append(f"{path}:{number}: a note '{note[1]}' without ': ' and a reason")
    return complaints


def machine_paths(path, text):
    return [
        f"{path}:{number}: a path of one machine: {found[0]}"
        for number, line in enumerate(text.splitlines(), 1)
        if (found := _MACHINE_PATH.search(line))
    ]


def white_space(path, text):
    complaints = []
    if text and not text.endswith("\n"):
        complaints.append(f"{path}: expected a newline at the end")
    if comment_mark(path, text) is None:
        return complaints
    for number, line in enumerate(text.splitlines(), 1):
        if line != line.rstrip() or "\t" in line:
            complaints.append(f"{path}:{number}: a tab, or white space at the end of a line")
    return complaints


def commented(path, text):
    """What a .proto declares has a comment, on its line or directly above it."""
    if Path(path).suffix != ".proto":
        return []
    complaints, above = [], ""
    for number, line in enumerate(text.splitlines(), 1):
        declared = _DECLARED.match(line)
        if declared and "//" not in line and not above.lstrip().startswith("//"):
            name = declared[1] or declared[2]
            complaints.append(f"{path}:{number}: expected a comment on or above '{name}'")
        above = line
    return complaints


CHECKS = (licence, length, header_guard, notes, machine_paths, white_space, commented)
