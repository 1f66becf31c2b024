# SPDX-License-Identifier: Apache-2.0
"""Golden questions over one document: tests/data/golden/document (keys: README.md there)."""

import dataclasses
import pathlib
import tempfile
import types

import numpy as np

from maskkv_oracle import (
    bounds,
    checkpoint,
    decode,
    document,
    golden_cases,
    golden_run,
    named,
    prefill,
    random_checkpoint,
)

RUNS = 6  # of the bounds' measurement
BUDGET = 5
TOKENS = 21  # of the document
QUESTIONS = (5, 7, 3, 6)  # tokens of each; the first is in place when the document is computed


@dataclasses.dataclass(frozen=True)
class Case:
    checkpoint: str
    policy: str = "maskkv"  # "maskkv" offline, "maskkv-online", or VOTERS/LAYERS/HEADS
    how: str | None = None  # of document.COMBINATIONS; None: the answered question votes for itself
    voters: int = 3  # so many of the questions, from the first, are combined
    sampling: decode.Sampling = decode.Sampling(8, 4, 8)


CASES = {
    "mha-over": Case("mha"),
    "mha-over-online": Case("mha", "maskkv-online"),
    "mha-over-pool": Case("mha", "masks/pool/pool", sampling=decode.Sampling(10, 5, 6)),
    "mha-sum": Case("mha", how="sum"),
    "mha-max": Case("mha", how="max"),
    "mha-min": Case("mha", how="min"),
    "mha-max-pool": Case("mha", "masks/pool/pool", how="max"),
    "gqa-over": Case("gqa", sampling=decode.Sampling(10, 5, 6)),
    "gqa-min-one": Case("gqa", how="min", voters=1),
    "odd-over-front": Case("odd", "masks-front/uniform/preference"),
    "dream-over": Case("dream"),
    "dream-max": Case("dream", "masks/uniform/preference", how="max"),
}


def _questions(name):
    """Random token ids of every question, never the mask's (the last id of the vocabulary)."""
    shape = golden_cases.CHECKPOINTS[name]
    rng = np.random.default_rng([shape.seed, TOKENS, 2])
    return [[int(i) for i in rng.integers(0, shape.vocab - 1, count)] for count in QUESTIONS]


def _values(model, ids, questions, params, case, base, noise=None):
    """Every real-valued result along the exact decisions: {name: array}."""
    masks, copy = params.gen_length, document.copy_of(
        model, ids, questions[0], params.gen_length, noise)
    runs = [
        document.vote_over(model, ids, copy, q, masks, base.eviction, noise, follow)
        for q, follow in zip(base.asked, base.prefills)
    ]
    if case.how:
        votes = document.combine(runs, len(ids), case.how)
        cache = document.kept_of(copy, base.kept)
    else:
        votes, cache = runs[0].votes, runs[0].cache
    values = {
        "log_scores": np.log(np.stack([vote.scores for vote in votes])),
        "preference": np.stack([vote.preference for vote in votes]),
        "importance": np.array(runs[0].importance),
    }
    c, canvas = model.config, [model.config.mask_id] * params.gen_length
    prompt = list(ids) + questions[-1]
    for s in base.answer.steps:
        raw = decode.answer_logits(
            model, prompt, canvas, cache, s.positions, noise, served=base.served)
        values[f"logits {s.step}"] = raw
        values[f"confidence {s.step}"] = decode.confidence_of(raw, s.tokens, [c.mask_id], noise)
        for position, token, _ in s.committed:
            canvas[position] = token
    return values


def _run(model, ids, questions, params, case, eviction):
    """Prefills, decision and answer of a case, exactly."""
    copy = document.copy_of(model, ids, questions[0], params.gen_length)
    asked = questions[: case.voters] if case.how else [questions[-1]]
    prefills = [
        document.vote_over(model, ids, copy, q, params.gen_length, eviction) for q in asked
    ]
    prompt = list(ids) + questions[-1]
    if case.how:
        votes = document.combine(prefills, len(ids), case.how)
        decision = document.decide(votes, len(ids), eviction)
        kept, k_layer = decision.kept, decision.layer_budgets
        cache, served = document.kept_of(copy, kept), len(ids)
    else:
        votes, kept = prefills[0].votes, prefills[0].kept
        k_layer = prefills[0].layer_budgets
        cache, served = prefills[0].cache, prefills[0].candidates
    return types.SimpleNamespace(
        eviction=eviction, asked=asked, prefills=prefills, votes=votes, kept=kept,
        layer_budgets=k_layer, importance=prefills[0].importance, served=served,
        candidates=len(ids) if case.how else served,
        answer=decode.run(model, prompt, params, cache, served=served),
    )  # fmt: skip


def _decided(base, limits):
    """[layers][heads]: no f32 implementation can keep other pairs here."""
    eviction, e = base.eviction, float(limits["log_scores"].max())
    if eviction.triple.layers == "pool":  # one border for all
        rows = [(vote.scores[h][: base.candidates], p) for vote, heads in zip(base.votes, base.kept)
                for h, p in enumerate(heads)]
        low = min(scores[np.array(p, int)].min(initial=np.inf) for scores, p in rows)
        high = max(np.delete(scores, p).max(initial=0) for scores, p in rows)
        return [[bool(low - high > e * (low + high))] * len(layer) for layer in base.kept]
    bound = {"scores": e, "preference": float(limits["preference"].max()),
             "importance": float(limits["importance"].max())}
    by_profile = eviction.profile is not None or eviction.triple.layers == "uniform"
    margins = golden_run.prefill_margins(
        base, dataclasses.replace(eviction, profile=tuple(base.importance))
        if by_profile else eviction, bound)
    return [[bool((by_profile or margins["layer_budgets_decided"])
                  and margins["head_budgets_decided"][l] and selection)
             for selection in layer] for l, layer in enumerate(margins["selection_decided"])]


def _case(name, case, model, profile):
    ids = golden_cases.prompt_of(golden_cases.Case(case.checkpoint, TOKENS, None, "maskkv"))
    questions = _questions(case.checkpoint)
    params = dataclasses.replace(case.sampling, stop_ids=(model.config.eos_id,), ignore_eos=True)
    eviction = prefill.Eviction(BUDGET, profile=profile if case.policy == "maskkv" else None,
                                policy=named.parse(case.policy))
    base = _run(model, ids, questions, params, case, eviction)
    limits = bounds.measure(
        lambda noise: _values(model, ids, questions, params, case, base, noise),
        _values(model, ids, questions, params, case, base), runs=RUNS)  # fmt: skip

    def of(number):
        return {n.split()[0]: v for n, v in limits.items() if n.split()[-1] == str(number)}

    return {
        "format": 1,
        "name": name,
        "model": f"tests/data/golden/checkpoints/{case.checkpoint}",
        "document_ids": ids,
        "questions": questions,
        "params": params.fields(),
        "policy": case.policy,
        "budget": BUDGET,
        "alpha": eviction.alpha,
        "beta": eviction.beta,
        "profile": list(profile),
        "combination": case.how,
        "voters": len(base.asked),
        "kept": [[[int(p) for p in head] for head in layer] for layer in base.kept],
        "decided": _decided(base, limits),
        "preference": [vote.preference.tolist() for vote in base.votes],
        "bounds": {"preference": float(limits["preference"].max())},
        "steps": [
            golden_run.step_json(s, params, of(s.step), None, len(ids) + len(questions[-1]))
            for s in base.answer.steps
        ],
        "canvas": [int(t) for t in base.answer.canvas],
    }  # fmt: skip


def generate():
    """{name of a case: its fields}"""
    models, profiles = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name in {case.checkpoint for case in CASES.values()}:
            path = pathlib.Path(folder) / name
            random_checkpoint.write(golden_cases.CHECKPOINTS[name], path)
            models[name] = checkpoint.load(path)
            profiles[name] = golden_run.measure_profile(
                models[name], golden_cases.profile_prompts(name), 12)
    return {
        name: _case(name, case, models[case.checkpoint], profiles[case.checkpoint])
        for name, case in CASES.items()
    }
