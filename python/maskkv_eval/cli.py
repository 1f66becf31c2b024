# SPDX-License-Identifier: Apache-2.0
"""maskkv-eval: a checkpoint under eviction policies, asked over the services' API.

    maskkv-eval --model models/tiny-llada --tasks world --policies maskkv,snapkv,none \\
        --budgets 8,32 --questions 100 --out build/eval
    maskkv-eval --server 127.0.0.1:50051 --tasks ruler,longbench --data DIR --length 8000 \\
        --policies maskkv,snapkv,full --budgets 32,128 --out build/eval-8b

Writes OUT/answers.jsonl as it goes, then OUT/report.json, report.md and report.png. The same
command goes on from OUT/answers.jsonl. docs/evaluation.md says more.
"""

import argparse
import asyncio
import contextlib
import pathlib
import sys

import maskkv
from maskkv_eval import journal, policies, report, runner, serving, tasks
from maskkv_eval.tasks.base import Options


def _whole(least):
    def parse(text):
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(
                f"expected a whole number from {least}, found {text!r}")
        return value

    return parse


def _budgets(text):
    return list(dict.fromkeys(map(_whole(1), text.split(","))))


def parser():
    p = argparse.ArgumentParser(prog="maskkv-eval", description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    where = p.add_mutually_exclusive_group(required=True)
    where.add_argument("--model", type=pathlib.Path, help="checkpoint; maskkv serve is started")
    where.add_argument("--server", help="address of a running maskkv")
    p.add_argument("--bin", help="the maskkv program, for --model (else MASKKV_BIN, PATH)")
    p.add_argument("--serve-flags", default="", help="more flags of maskkv serve, with spaces")
    p.add_argument("--token", help="bearer token, where the server asks for one")
    p.add_argument("--tasks", required=True, help=f"some of {', '.join(tasks.NAMES)}")
    p.add_argument("--policies", required=True,
                   help="names of docs/policies.md; none: no cache; plan: the server's own")
    p.add_argument("--budgets", type=_budgets, default=[], metavar="B,...",
                   help="pairs a head and layer")
    p.add_argument("--questions", type=_whole(1), default=100, help="of each task")
    p.add_argument("--length", type=_whole(1), default=1000,
                   help="tokens a prompt (world: words a document)")
    p.add_argument("--haystack", default="prose",
                   help="of ruler: prose, repeat, keys or a text file")
    p.add_argument("--lookalikes", type=float, default=0.0,
                   help="of world: share of people who have a name in common with another")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--data", type=pathlib.Path, help="folder of the tasks that read files")
    p.add_argument("--out", type=pathlib.Path, required=True, help="folder for what is written")
    p.add_argument("--block-length", type=_whole(1), default=8)
    p.add_argument("--tokens-per-step", type=_whole(1), default=1)
    p.add_argument("--concurrency", type=_whole(1), default=4, help="requests at once")
    p.add_argument("--timeout", type=float, help="seconds a request; none by default")
    p.add_argument("--weak-sandbox", action="store_true",
                   help="run HumanEval's completions under limits alone")
    return p


def _policies(args):
    names = list(dict.fromkeys(args.policies.split(",")))
    for name in names:
        policies.check_name(name)
        if policies.has_budget(name) and not args.budgets:
            raise SystemExit(f"--budgets: expected at least one for the policy {name}, found none")
    return names


@contextlib.contextmanager
def _address(args):
    if args.server:
        yield args.server
        return
    with serving.served(serving.find_binary(args.bin), args.model, args.out / "serve.log",
                        args.serve_flags.split()) as address:
        yield address


async def _evaluate(args, address, names):
    """(records, tasks, the model's ModelInfo) of a finished run."""
    wanted = runner.cells(names, args.budgets)
    sampling = serving.Sampling(args.block_length, args.tokens_per_step, seed=args.seed)
    async with serving.Asker(address, args.token, args.timeout) as asker:
        if named := [name for name in names if name not in (policies.NONE, policies.PLAN)]:
            await asker.check_names(named)
        with maskkv.Client(address, token=args.token, timeout=args.timeout) as client:
            made = tasks.make(args.tasks, Options(
                questions=args.questions, length=args.length, seed=args.seed, data=args.data,
                count=lambda prompt: len(client.tokenize(**prompt)), haystack=args.haystack,
                lookalikes=args.lookalikes, strict_sandbox=not args.weak_sandbox))
            identity = {"model": asker.info.model_fingerprint, "dtype": asker.info.dtype,
                        "sampling": vars(sampling)}
            with journal.Journal(args.out / "answers.jsonl") as answers:
                done = runner.finished(answers, identity, made)
                await runner.run(asker, made, wanted, answers, done, sampling=sampling,
                                 seed=args.seed, concurrency=args.concurrency)
        return report.gather(asker.info.model_name, made, wanted, done), asker.info


def main(argv=None):
    args = parser().parse_args(argv)
    names = _policies(args)
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        with _address(args) as address:
            cells, info = asyncio.run(_evaluate(args, address, names))
    except (serving.Stop, maskkv.Error) as error:
        raise SystemExit(f"maskkv-eval: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    command = "maskkv-eval " + " ".join(sys.argv[1:] if argv is None else map(str, argv))
    report.write(args.out, cells, info, command)
    print(args.out / "report.md")


if __name__ == "__main__":
    main()
