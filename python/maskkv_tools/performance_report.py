# SPDX-License-Identifier: Apache-2.0
"""The report of maskkv_tools.performance, JSON: what was measured where, group by group, so that
several runs of the same code on the same machine make one table.

    {"machine", "threads", "quick", "commit",
     "groups": {group: {"run": when its run began, "seconds", "failed"}},
     "rows": [{"group", "name", "what", "figure", "bar", "holds", "note"}],
     "raw": {group: what its programs printed}}

holds is null where a row was not measured; its note says why.
"""

import json
import os
import pathlib
import subprocess

# What the figures are of; a change elsewhere (pages, other tools) leaves the commit as it is.
CODE = ("core", "kernels", "protos", "services", "tests/bench", "cmake", "CMakeLists.txt",
        "CMakePresets.json", "python/maskkv_oracle", "python/maskkv_tiny", "models",
        "python/maskkv_tools/performance.py", "python/maskkv_tools/performance_features.py",
        "python/maskkv_tools/performance_rows.py", "python/maskkv_tools/performance_services.py",
        "python/maskkv_tools/torch_peer.py", "python/maskkv_tools/bench_models.py",
        "python/maskkv_tools/dtype_agreement.py", "python/requirements-train.txt")
SAME = ("machine", "threads", "quick", "commit")


class Missing(Exception):
    """Why a group cannot be measured here; no failure."""


class Failed(Exception):
    """What a program that was to measure said."""


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return f"{line.partition(': ')[2]}, {os.cpu_count()} cores"
    return f"{os.cpu_count()} cores"


def _git(*command):
    try:
        return subprocess.run(["git", *command, "--", *CODE], capture_output=True, text=True,
                              check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def commit():
    """The last commit that changed the code, "+" behind it if files differ from it; "unknown" outside
    of a repository."""
    last = _git("log", "-1", "--format=%h", "--abbrev=12")
    if not last:
        return "unknown"
    return last + ("+" if _git("status", "--porcelain") else "")


def empty(threads, quick):
    return {"machine": processor(), "threads": threads, "quick": quick, "commit": commit(),
            "groups": {}, "rows": [], "raw": {}}


def read_kept(path, report):
    """An earlier report to go on with. Exits unless it is of what `report` is of."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    for field in SAME:
        if kept.get(field) != report[field]:
            raise SystemExit(f"--keep {path}: expected {field} {report[field]}, found "
                             f"{kept.get(field)}")
    return kept


def set_group(report, group, order, rows, raw, **about):
    """Puts a group's rows and raw measurements in the place of what is there of it; groups in order."""
    report["groups"][group] = about
    report["raw"][group] = raw
    others = [row for row in report["rows"] if row["group"] != group]
    new = [{"group": group, **row.record()} for row in rows]
    report["rows"] = sorted(others + new, key=lambda row: order.index(row["group"]))


def save(report, path):
    """In one piece, so that an interrupted run leaves the last whole one."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(report) + "\n", encoding="utf-8")
    part.replace(path)


def text_table(report):
    lines = [f"machine: {report['machine']}, {report['threads']} threads; code: {report['commit']}"]
    if report["quick"]:
        lines.append("a tiny model and small sizes, not those that the rows name")
    for row in report["rows"]:
        figure = "not measured" if row["figure"] is None else f"{row['figure']:.3g}"
        verdict = {True: "holds", False: "MISSED", None: "-"}[row["holds"]]
        lines.append(f"{verdict:6} {row['name']:26} {figure:>12}  {row['bar']:8}  {row['what']}")
        if row["note"]:
            lines.append(f"{'':57}{row['note']}")
    seconds = {group: about["seconds"] for group, about in report["groups"].items()}
    lines.append("seconds: " + ", ".join(f"{group} {s:.0f}" for group, s in seconds.items()) +
                 f"; together {sum(seconds.values()):.0f}")
    return "\n".join(lines)
