# SPDX-License-Identifier: Apache-2.0
"""The embedded models' world: facts about people, one value to be named exactly."""

import random

from maskkv_eval import metrics
from maskkv_eval.tasks.base import Item, Task, digest

ANSWER_TOKENS = 8


class World(Task):
    name, exact = "world", True

    def __init__(self, options):
        try:
            from maskkv_tiny import world
        except ImportError:
            raise SystemExit("--tasks world: expected the package maskkv_tiny, found none: it is "
                             "in the repository's python folder, not in the published package"
                             ) from None
        self._world, self._options = world, options
        self.size = options.questions
        self.source = digest("world", options.length, options.seed, options.lookalikes)
        try:  # a length that holds no facts is found out before anything is asked
            world.make_document(random.Random(0), "test", options.length, 1)
        except ValueError as error:
            raise SystemExit(f"--tasks world: {error}") from None

    def item(self, index):
        o = self._options
        record = self._world.record("test", index, o.length, o.seed, o.lookalikes)
        return Item(record["id"], f"world/{record['kind']}",
                    {"document": record["document"], "question": record["question"]},
                    (record["answer"],), ANSWER_TOKENS)

    def score(self, item, text):
        return metrics.exact(text, item.references[0])
