# SPDX-License-Identifier: Apache-2.0
"""The records of a finished run as cells, and as JSON, Markdown and a plot."""

import dataclasses
import json
import statistics

from maskkv_eval import tables


def gather(model, tasks, cells, records):
    """One cell of tables.py a group of questions, policy and budget; questions in order.

    records: (task, index, policy, budget) -> record, complete.
    """
    found = []
    for task in tasks:
        groups = {}  # group -> indices
        for index in range(task.size):
            first = records[task.name, index, cells[0].policy, cells[0].budget]
            groups.setdefault(first["group"], []).append(index)
        for group, indices in sorted(groups.items()):
            for cell in cells:
                part = [records[task.name, i, cell.policy, cell.budget] for i in indices]
                found.append(_cell(model, group, task.exact, cell, part))
    return found


def _cell(model, group, exact, cell, records):
    scores = [record["score"] for record in records]
    right = [int(score == 1) for score in scores]
    made = {"model": model, "task": group, "policy": cell.policy, "budget": cell.budget,
            "questions": len(records), "correct": sum(right),
            "kept_mass": statistics.fmean(record["kept_mass"] for record in records),
            "prompt_tokens": statistics.fmean(record["prompt_tokens"] for record in records),
            "right": right}
    return made if exact else {**made, "scores": scores}


def write(folder, cells, info, command):
    """FOLDER/report.json, report.md and report.png."""
    report = {"model": dataclasses.asdict(info), "command": command, "cells": cells}
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    page = tables.with_image(tables.markdown(cells, command), "report.png")
    (folder / "report.md").write_text(page, encoding="utf-8")
    tables.plot(cells, folder / "report.png")
