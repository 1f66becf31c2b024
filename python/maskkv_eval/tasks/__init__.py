# SPDX-License-Identifier: Apache-2.0
"""The tasks by name. A task is a tasks.base.Task; make() is the one place that knows them all."""

from maskkv_eval.tasks import gsm8k, humaneval, longbench, ruler, tiny_world

NAMES = ("world", "ruler", *(f"ruler:{kind}" for kind in ruler.KINDS), "longbench",
         "longbench:DATASET", "gsm8k", "humaneval")


def make(names, options):
    """The Tasks of the comma-separated `names`, in order; SystemExit for what is wrong."""
    made = []
    for name in names.split(","):
        family, _, part = name.partition(":")
        if family == "ruler" and part in ("", *ruler.KINDS):
            made += [ruler.Ruler(kind, options) for kind in ([part] if part else ruler.KINDS)]
        elif family == "longbench":
            made += longbench.make(part, options)
        elif name == "world":
            made.append(tiny_world.World(options))
        elif name == "gsm8k":
            made.append(gsm8k.Gsm8k(options))
        elif name == "humaneval":
            made.append(humaneval.HumanEval(options))
        else:
            raise SystemExit(f"--tasks: expected some of {', '.join(NAMES)}, found {name!r}")
    found = [task.name for task in made]
    if len(set(found)) != len(found):
        raise SystemExit(f"--tasks: expected each task once, found {', '.join(found)}")
    return made
