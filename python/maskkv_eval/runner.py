# SPDX-License-Identifier: Apache-2.0
"""Asks every question under every policy and budget, several at once, and writes each answer down.

The journal's first line says what all its answers depend on; every other line is one answer. A run
that is stopped, by kill -9 too, goes on from its journal; more questions, tasks, policies or
budgets only add lines.
"""

import asyncio
from dataclasses import dataclass

from tqdm import tqdm

from maskkv_eval import policies, serving
from maskkv_eval.serving import Stop


@dataclass(frozen=True)
class Cell:
    policy: str
    budget: int | None

    def __str__(self):
        return self.policy if self.budget is None else f"{self.policy}, B = {self.budget}"


def cells(policy_names, budgets):
    """Every policy under every budget; those that have none once."""
    return [Cell(policy, budget) for policy in policy_names
            for budget in (budgets if policies.has_budget(policy) else [None])]


def finished(journal, identity, tasks):
    """(task, index, policy, budget) -> record of what the journal holds; writes its first line.

    SystemExit if its answers depend on something else than `identity` or are to other questions.
    """
    if not journal.records:
        journal.append({"run": identity})
        return {}
    number, head = journal.records[0]
    if head.get("run") != identity:
        raise SystemExit(f"{journal.path}:{number}: expected answers of {identity}, found those of "
                         f"{head.get('run')}; use another --out")
    sources = {task.name: task.source for task in tasks}
    done = {}
    for number, record in journal.records[1:]:
        try:
            name, source = record["task"], record["source"]
            key = (name, record["index"], record["policy"], record["budget"])
        except KeyError as error:
            raise SystemExit(f"{journal.path}:{number}: field {error.args[0]}: expected one, found "
                             "none") from None
        if source != sources.get(name, source):
            raise SystemExit(f"{journal.path}:{number}: expected questions {sources[name]} of task "
                             f"{name}, found {source} (another length, seed, haystack or file); "
                             "use another --out")
        done[key] = record
    return done


class _Run:
    def __init__(self, asker, sampling, seed, journal, done, bar):
        self._asker, self._sampling, self._seed = asker, sampling, seed
        self._journal, self.done, self._bar = journal, done, bar

    async def produce(self, tasks, wanted, queue):
        for task in tasks:
            for index in range(task.size):
                missing = [cell for cell in wanted
                           if (task.name, index, cell.policy, cell.budget) not in self.done]
                if missing:
                    item = await _in_thread(task.item, index)
                for cell in missing:
                    await queue.put((task, index, item, cell))

    async def consume(self, queue):
        while (job := await queue.get()) is not None:
            await self._answer(*job)

    async def _answer(self, task, index, item, cell):
        request = serving.generate_request(item, cell.policy, cell.budget, self._sampling,
                                           self._seed)
        try:
            reply = await self._asker.ask(request, cell.policy, cell.budget)
            score = await _in_thread(task.score, item, reply.text)
        except Stop as error:
            raise Stop(f"{item.id} under {cell}: {error}") from None
        record = {"task": task.name, "source": task.source, "index": index, "id": item.id,
                  "group": item.group, "policy": cell.policy, "budget": cell.budget,
                  "score": score, "text": reply.text, "prompt_tokens": reply.prompt_tokens,
                  "kept_pairs": reply.kept_pairs, "kept_mass": reply.mass, "steps": reply.steps,
                  "total_ms": round(reply.total_ms, 3)}
        self._journal.append(record)
        self.done[task.name, index, cell.policy, cell.budget] = record
        self._bar.update()


async def _in_thread(function, *arguments):
    def call():
        try:
            return function(*arguments)
        except SystemExit as error:
            raise Stop(str(error)) from None

    return await asyncio.to_thread(call)


async def run(asker, tasks, wanted, journal, done, *, sampling, seed=0, concurrency=4):
    """Fills `done` with the records of all tasks under the cells `wanted`. Stop for an error."""
    total = len(wanted) * sum(task.size for task in tasks)
    here = sum((task.name, index, cell.policy, cell.budget) in done
               for task in tasks for index in range(task.size) for cell in wanted)
    queue = asyncio.Queue(2 * concurrency)
    with tqdm(total=total, initial=here, unit="answer", disable=None) as bar:
        work = _Run(asker, sampling, seed, journal, done, bar)

        async def produce():
            await work.produce(tasks, wanted, queue)
            for _ in range(concurrency):
                await queue.put(None)

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(produce())
                for _ in range(concurrency):
                    group.create_task(work.consume(queue))
        except BaseExceptionGroup as several:
            stops, others = several.split(Stop)
            if others:
                raise
            raise stops.exceptions[0] from None
    return done
