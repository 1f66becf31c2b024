# SPDX-License-Identifier: Apache-2.0
"""Pages of which several programs make a section each."""


def replaced(page, heading, text):
    """The page with `text` under the line "## heading", in the place of what was there, or at the end."""
    lines = page.splitlines()
    start = next((i for i, line in enumerate(lines) if line == f"## {heading}"), len(lines))
    end = next((i for i in range(start + 1, len(lines)) if lines[i].startswith("## ")), len(lines))
    parts = ["\n".join(lines[:start]), f"## {heading}\n\n{text.strip()}", "\n".join(lines[end:])]
    return "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"


def write(path, heading, text):
    """The same of a file, which is made if it is not there."""
    page = path.read_text(encoding="utf-8") if path.exists() else ""
    path.write_text(replaced(page, heading, text), encoding="utf-8")
