# SPDX-License-Identifier: Apache-2.0
"""What the golden cases are: random checkpoints, prompts and parameters."""

import dataclasses
import json
import pathlib
import re

import numpy as np

from maskkv_oracle import decode, prefill, rules
from maskkv_oracle.decode import Rule, Sampling
from maskkv_oracle.random_checkpoint import Shape

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = "models/tiny-llada"

CHECKPOINTS = {
    "mha": Shape(seed=1, hidden=32, layers=4, heads=4, kv_heads=4, ffn=48, vocab=131),
    "gqa": Shape(seed=2, hidden=48, layers=3, heads=6, kv_heads=2, ffn=64, vocab=101,
                 embedding_rows=104, bf16=True, shards=3),
    "mqa": Shape(seed=3, hidden=24, layers=2, heads=4, multi_query=True, ffn=40, vocab=64,
                 tied=True, eps=1e-6),
    "one_head": Shape(seed=4, hidden=16, layers=3, heads=1, ffn=33, vocab=70, embedding_rows=70),
    "one_layer": Shape(seed=5, hidden=32, layers=1, heads=2, kv_heads=1, ffn=64, vocab=90),
    "odd": Shape(seed=6, hidden=30, layers=3, heads=5, kv_heads=5, ffn=37, vocab=259,
                 theta=10000.0),
    "deep": Shape(seed=7, hidden=16, layers=8, heads=4, kv_heads=2, ffn=24, vocab=50, bf16=True),
    # iLLaDA: 8 KV heads, a tied head.
    "illada": Shape(seed=8, hidden=32, layers=3, heads=16, kv_heads=8, ffn=40, vocab=73, tied=True),
    # Dream: biases of q, k and v, shifted logits.
    "dream": Shape(seed=9, hidden=36, layers=3, heads=6, kv_heads=2, ffn=50, vocab=83,
                   embedding_rows=88, theta=1e6, eps=1e-6, family="dream", bf16=True, shards=2),
    "dream_mqa": Shape(seed=10, hidden=28, layers=2, heads=7, kv_heads=1, ffn=23, vocab=61,
                       theta=1e6, eps=1e-6, family="dream"),
    # LLaDA-MoE: experts, norms of q and k.
    "moe": Shape(seed=11, hidden=32, layers=2, heads=4, kv_heads=4, ffn=12, vocab=71, theta=5e4,
                 family="llada-moe", experts=6, experts_per_token=2, shards=2),
    "moe_gqa": Shape(seed=12, hidden=24, layers=3, heads=4, kv_heads=2, ffn=9, vocab=61,
                     embedding_rows=64, theta=5e4, family="llada-moe", experts=4,
                     experts_per_token=2, norm_topk_prob=True, tied=True, bf16=True),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Case:
    checkpoint: str
    prompt: int  # tokens
    sampling: Sampling
    cache: str  # none | full | maskkv
    budget: int | None = None
    mode: str = "offline"
    alpha: float = 0.1
    beta: float = 0.4
    prompt_seed: int = 0
    reuse: tuple | None = None  # tokens of the document, tokens of another question about it
    canvas: tuple = ()  # runs: n masks, or -n given tokens, the first of which is eos; (): masks
    suffix: int = 0  # prompt tokens after the canvas


def _s(gen, block, steps, **more):
    return Sampling(gen, block, steps, **more)


def _r(name, gen, block, steps, numbers=None, **more):
    """Sampling by a rule. Random models are sure of nothing: thresholds that some masks reach."""
    numbers = {"threshold": 0.5, "low_threshold": 0.35, "factor": 2.2} | (numbers or {})
    return Sampling(gen, block, steps, rule=Rule(name, **numbers), ignore_eos=True, **more)


CASES = {
    # One checkpoint through every cache, so that their answers can be laid side by side.
    "mha-none": Case("mha", 37, _s(16, 8, 16), "none"),
    "mha-full": Case("mha", 37, _s(16, 8, 16), "full"),
    "mha-offline": Case("mha", 37, _s(16, 8, 16), "maskkv", 8),
    "mha-online": Case("mha", 37, _s(16, 8, 16), "maskkv", 8, "online"),
    "mha-budget-one": Case("mha", 37, _s(16, 8, 16), "maskkv", 1),
    "mha-budget-prompt": Case("mha", 37, _s(16, 8, 16), "maskkv", 37),
    "mha-budget-beyond": Case("mha", 37, _s(16, 8, 16), "maskkv", 1000),
    # Schedules: uneven commits, several blocks, one step a block, one token a step.
    "mha-uneven-steps": Case("mha", 20, _s(21, 7, 9), "maskkv", 6, prompt_seed=1),
    "mha-one-block": Case("mha", 20, _s(13, 13, 5), "none", prompt_seed=2),
    "mha-one-step-a-block": Case("mha", 20, _s(12, 3, 4), "full", prompt_seed=3),
    # Sampling.
    "mha-noise": Case(
        "mha", 24, _s(16, 8, 16, temperature=1.0, seed=7), "maskkv", 6, prompt_seed=4
    ),
    "mha-noise-other-seed": Case(
        "mha", 24, _s(16, 8, 16, temperature=1.0, seed=0x9E3779B97F4A7C15), "maskkv", 6,
        prompt_seed=4,
    ),
    "mha-noise-none": Case("mha", 24, _s(16, 4, 8, temperature=0.7, seed=3), "none"),
    # Base rates at their ends.
    "mha-alpha-zero": Case("mha", 40, _s(8, 8, 8), "maskkv", 10, alpha=0.0, beta=0.0),
    "mha-alpha-one": Case("mha", 40, _s(8, 8, 8), "maskkv", 10, alpha=1.0, beta=1.0),
    # Shapes.
    "gqa-offline": Case("gqa", 53, _s(24, 8, 12), "maskkv", 9),
    "gqa-online": Case("gqa", 53, _s(24, 8, 12), "maskkv", 9, "online"),
    "gqa-none": Case("gqa", 53, _s(24, 8, 12), "none"),
    "mqa-offline": Case("mqa", 31, _s(10, 5, 10), "maskkv", 5),
    "mqa-full": Case("mqa", 31, _s(10, 5, 10), "full"),
    "one-head-offline": Case("one_head", 29, _s(9, 9, 9), "maskkv", 4),
    "one-layer-offline": Case("one_layer", 33, _s(11, 11, 11), "maskkv", 7),
    "odd-offline": Case("odd", 43, _s(15, 5, 15), "maskkv", 11),
    "odd-none": Case("odd", 43, _s(15, 5, 15), "none"),
    "deep-offline": Case("deep", 45, _s(8, 4, 8), "maskkv", 10),
    "deep-online": Case("deep", 45, _s(8, 4, 8), "maskkv", 10, "online"),
    # Other families.
    "illada-none": Case("illada", 27, _s(12, 4, 12), "none"),
    "illada-full": Case("illada", 27, _s(12, 4, 12), "full"),
    "illada-offline": Case("illada", 27, _s(12, 4, 12), "maskkv", 5),
    "dream-none": Case("dream", 39, _s(16, 8, 16), "none"),
    "dream-full": Case("dream", 39, _s(16, 8, 16), "full"),
    "dream-offline": Case("dream", 39, _s(16, 8, 16), "maskkv", 7),
    "dream-online": Case("dream", 39, _s(16, 8, 16), "maskkv", 7, "online"),
    "dream-budget-candidates": Case("dream", 12, _s(8, 4, 8), "maskkv", 11, prompt_seed=1),
    "dream-noise": Case(
        "dream", 22, _s(12, 4, 6, temperature=0.8, seed=5), "maskkv", 4, prompt_seed=2
    ),
    "dream-reuse": Case("dream", 30, _s(8, 4, 8), "maskkv", 6, prompt_seed=3, reuse=(21, 9)),
    "dream-prompt-two": Case("dream_mqa", 2, _s(6, 3, 6), "maskkv", 4),
    "dream-mqa-none": Case("dream_mqa", 19, _s(9, 3, 9), "none"),
    "dream-mqa-offline": Case("dream_mqa", 19, _s(9, 3, 9), "maskkv", 4),
    "moe-none": Case("moe", 33, _s(12, 4, 12), "none"),
    "moe-full": Case("moe", 33, _s(12, 4, 12), "full"),
    "moe-offline": Case("moe", 33, _s(12, 4, 12), "maskkv", 6),
    "moe-gqa-none": Case("moe_gqa", 29, _s(12, 6, 6), "none"),
    "moe-gqa-offline": Case("moe_gqa", 29, _s(12, 6, 6), "maskkv", 5),
    "moe-gqa-online": Case("moe_gqa", 29, _s(12, 6, 6), "maskkv", 5, "online"),
    # A document asked about again: what was kept of it serves another question.
    "mha-reuse-document": Case("mha", 30, _s(16, 8, 16), "full", prompt_seed=5, reuse=(30, 8)),
    "gqa-reuse": Case(
        "gqa", 53, _s(12, 4, 12, temperature=0.7, seed=11), "maskkv", 9, reuse=(41, 17)
    ),
    "odd-reuse-online": Case("odd", 33, _s(10, 5, 10), "maskkv", 9, "online", reuse=(29, 1)),
    # The shortest prompt, the shortest answer.
    "prompt-one": Case("gqa", 1, _s(8, 4, 8), "maskkv", 4),
    "answer-one": Case("odd", 30, _s(1, 1, 1), "maskkv", 3),
    # Other rules.
    "rule-random": Case("mha", 20, _r("random", 12, 6, 8, seed=5), "full"),
    "rule-origin": Case("mha", 20, _r("origin", 12, 12, 6, seed=5), "full"),
    "rule-maskgit-plus": Case("mha", 20, _r("maskgit_plus", 12, 12, 6), "none"),
    "rule-topk-margin": Case("gqa", 21, _r("topk_margin", 12, 12, 5), "maskkv", 6),
    "rule-entropy": Case("dream", 22, _r("entropy", 12, 12, 6), "maskkv", 6),
    "rule-entropy-blocks": Case("mha", 20, _r("entropy", 12, 4, 6), "full"),
    "rule-threshold": Case("mha", 20, _r("threshold", 12, 6, 1), "full"),
    "rule-factor": Case("gqa", 21, _r("factor", 12, 12, 1), "maskkv", 6),
    "rule-hierarchical": Case("deep", 20, _r("hierarchical", 12, 12, 1), "none"),
    "rule-prefix": Case("dream", 22, _r("prefix", 12, 6, 1), "full"),
    "rule-origin-noise": Case(
        "dream", 22, _r("origin", 12, 12, 6, temperature=0.8, seed=9), "none"
    ),
    "rule-maskgit-noise": Case(
        "mha", 20, _r("maskgit_plus", 12, 12, 6, {"alg_temp": 0.3}, temperature=0.8, seed=3), "full"
    ),
    "rule-margin-noise": Case(
        "dream", 22, _r("topk_margin", 12, 12, 6, temperature=0.7, seed=4), "maskkv", 5
    ),
    "rule-threshold-noise": Case(
        "mha", 20, _r("threshold", 12, 6, 1, temperature=0.8, seed=6), "maskkv", 6
    ),
    "rule-slowfast": Case(
        "mha", 20, _r("slowfast", 16, 16, 1, {"span_threshold": 0.45, "threshold": 0.4}), "full",
        prompt_seed=1,
    ),
    "rule-slowfast-blocks": Case(
        "gqa", 21, _r("slowfast", 16, 8, 1, {"explore_steps": 2, "stable_steps": 3,
                                             "threshold": 0.3, "span_threshold": 0.25}),
        "maskkv", 6, prompt_seed=2,
    ),
    "rule-slowfast-shifted": Case(
        "dream", 22, _r("slowfast", 14, 14, 1, {"stable_steps": 1, "threshold": 0.4}), "none"
    ),
    "rule-slowfast-noise": Case(
        "deep", 20, _r("slowfast", 12, 6, 1, {"span_threshold": 0.2}, temperature=0.8, seed=8),
        "full",
    ),
    # Ends of an answer.
    "mha-stop": Case("mha", 37, _s(16, 4, 16), "maskkv", 8),
    "mha-stop-ignored": Case("mha", 37, _s(16, 4, 16, ignore_eos=True), "maskkv", 8),
    "deep-eos": Case("deep", 25, _s(16, 4, 16), "none", prompt_seed=8),
    "deep-suppress-eos": Case("deep", 25, _s(16, 4, 16, suppress_eos=True), "none", prompt_seed=8),
}

# Seeded rules, top-p, top-k and eps over whole answers: made anew by the test, as INFILL.
SEEDED = {
    "random-noise": Case("mha", 20, _r("random", 12, 6, 8, temperature=0.8, seed=5), "full"),
    "entropy-noise": Case(
        "dream", 22, _r("entropy", 12, 12, 6, {"alg_temp": 0.3}, temperature=0.7, seed=4), "maskkv", 5
    ),
    "factor-noise": Case("gqa", 21, _r("factor", 12, 12, 1, temperature=0.8, seed=6), "full"),
    "hierarchical-noise": Case(
        "deep", 20, _r("hierarchical", 12, 12, 1, temperature=0.8, seed=8), "none"
    ),
    "prefix-noise": Case("dream", 22, _r("prefix", 12, 6, 1, temperature=0.8, seed=9), "full"),
    "entropy-top-p": Case(
        "mha", 20, _r("entropy", 12, 12, 6, {"top_p": 0.8}, temperature=0.7, seed=2), "maskkv", 6
    ),
    "margin-top-k": Case(
        "dream", 22, _r("topk_margin", 12, 12, 5, {"top_k": 5, "eps": 0.05}), "full"
    ),
    "maskgit-top-both": Case(
        "gqa", 21, _r("maskgit_plus", 12, 6, 6, {"top_p": 0.6, "top_k": 7, "eps": 0.3},
                      temperature=1.2, seed=3), "none",
    ),
    "threshold-top-k": Case(
        "deep", 20, _r("threshold", 12, 6, 1, {"top_k": 3}, temperature=0.8, seed=1), "full"
    ),
}

# Filling in: masks between given tokens, the prompt on both sides of the canvas. Made anew by the
# test that runs the engine on them (test_golden_made_here.py), in no committed file.
INFILL = {
    "infill-none": Case("mha", 19, _s(6, 6, 6), "none", suffix=14),
    "infill-full": Case("mha", 19, _s(6, 6, 6), "full", suffix=14),
    "infill-offline": Case("mha", 19, _s(6, 6, 6), "maskkv", 5, suffix=14),
    "infill-spans-none": Case("mha", 15, _s(16, 8, 16), "none", canvas=(4, -3, 5, -2, 2), suffix=11),
    "infill-spans-offline": Case(
        "mha", 15, _s(16, 8, 10), "maskkv", 4, canvas=(4, -3, 5, -2, 2), suffix=11
    ),
    "infill-spans-noise-online": Case(
        "gqa", 23, _s(12, 4, 6, temperature=0.8, seed=13), "maskkv", 6, "online",
        canvas=(2, -1, 3, -4, 2), suffix=17,
    ),
    "infill-blocks-without-masks": Case(
        "gqa", 20, _s(15, 3, 10), "maskkv", 5, canvas=(-5, 3, -4, 2, -1)
    ),
    "infill-no-prompt-before": Case("mqa", 0, _s(5, 5, 5), "maskkv", 4, suffix=20),
    "infill-one-mask": Case("odd", 9, _s(7, 7, 7), "maskkv", 1, canvas=(-3, 1, -3), suffix=2),
    "infill-dream-none": Case("dream", 17, _s(6, 3, 6), "none", suffix=12),
    "infill-dream-offline": Case("dream", 17, _s(6, 3, 6), "maskkv", 5, suffix=12),
    "infill-dream-spans-none": Case(
        "dream_mqa", 13, _s(12, 6, 12), "none", canvas=(-2, 4, -1, 3, -2), suffix=8
    ),
    "infill-dream-spans-full": Case(
        "dream_mqa", 13, _s(12, 6, 12), "full", canvas=(-2, 4, -1, 3, -2), suffix=8
    ),
    "infill-dream-spans-offline": Case(
        "dream_mqa", 13, _s(12, 6, 12), "maskkv", 3, canvas=(3, -2, 4, -1, 2), suffix=8
    ),
    "infill-reuse": Case(
        "mha", 24, _s(8, 4, 8), "maskkv", 6, reuse=(17, 6), canvas=(2, -2, 4), suffix=7
    ),
}

# Cases whose hidden states another case has already.
SMALL = (
    "mha-none", "mha-full", "mha-online", "mha-budget-one", "mha-budget-prompt",
    "mha-budget-beyond", "mha-noise-other-seed", "mha-alpha-one", "mha-stop", "mha-stop-ignored",
    "gqa-none", "gqa-reuse", "mha-reuse-document", "odd-reuse-online", "mqa-full", "odd-none", "deep-online", "deep-suppress-eos",
    "illada-none", "illada-full", "dream-none", "dream-full", "dream-online", "dream-noise",
    "dream-budget-candidates", "dream-reuse", "dream-mqa-none", "moe-none", "moe-full", "moe-gqa-none",
    "moe-gqa-online",
    "rule-random", "rule-origin", "rule-maskgit-plus", "rule-topk-margin", "rule-entropy",
    "rule-entropy-blocks", "rule-threshold", "rule-factor", "rule-hierarchical", "rule-prefix",
    "rule-origin-noise", "rule-maskgit-noise", "rule-margin-noise", "rule-threshold-noise",
    "rule-slowfast", "rule-slowfast-blocks", "rule-slowfast-shifted", "rule-slowfast-noise",
)  # fmt: skip

# Random models seldom predict their eos ("deep-eos" does). These cases name as a stop id, beside
# eos, the token that the unstopped answer holds at this position.
STOP_AT_ANSWER_POSITION = {"mha-stop": 5, "mha-stop-ignored": 5}


# Models on which every policy runs.
POLICY_CHECKPOINTS = ("deep", "dream")


def prompt_of(case):
    """Random ids, never the mask's (the last id of the vocabulary)."""
    shape = CHECKPOINTS[case.checkpoint]
    rng = np.random.default_rng([shape.seed, case.prompt_seed, case.prompt])
    return [int(i) for i in rng.integers(0, shape.vocab - 1, case.prompt)]


def sampling_of(case, config):
    """The case's parameters with eos as its stop id, its canvas and its suffix of random ids."""
    rng = np.random.default_rng([CHECKPOINTS[case.checkpoint].seed, case.prompt_seed, case.prompt, 2])
    vocab = CHECKPOINTS[case.checkpoint].vocab
    canvas = []
    for run in case.canvas:
        given = rng.integers(0, vocab - 1, max(-run, 0))
        given[:1] = config.eos_id  # ends nothing
        canvas += [int(i) for i in given] or [config.mask_id] * run
    suffix = tuple(int(i) for i in rng.integers(0, vocab - 1, case.suffix))
    return dataclasses.replace(
        case.sampling, stop_ids=(config.eos_id,), canvas=tuple(canvas), suffix=suffix
    )


def question_of(case):
    """Random ids of another question about the first case.reuse[0] tokens of the prompt."""
    shape = CHECKPOINTS[case.checkpoint]
    rng = np.random.default_rng([shape.seed, case.prompt_seed, case.prompt, 1])
    return [int(i) for i in rng.integers(0, shape.vocab - 1, case.reuse[1])]


def profile_prompts(checkpoint):
    """Two prompts, other than any case's, to measure an offline profile on."""
    shape = CHECKPOINTS[checkpoint]
    rng = np.random.default_rng([shape.seed, 99])
    return [[int(i) for i in rng.integers(0, shape.vocab - 1, 40)] for _ in range(2)]


def chat(document, question):
    """The rendered chat prompt of LLaDA for one user message."""
    return (
        "<|startoftext|><|start_header_id|>user<|end_header_id|>\n\n"
        f"{document}\n\n{question}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def tiny_prompts(count):
    """Token ids of the embedded model's first calibration questions; [] while there is no model."""
    folder = ROOT / TINY
    needed = ("model.safetensors", "config.json", "tokenizer.json", "calibration.jsonl")
    if not all((folder / name).exists() for name in needed):
        return []
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    lines = (folder / "calibration.jsonl").read_text(encoding="utf-8").splitlines()[:count]
    records = [json.loads(line) for line in lines]
    return [
        tokenizer.encode(chat(r["document"], r["question"]), add_special_tokens=False).ids
        for r in records
    ]


def tiny_sampling(model, folder):
    """How the embedded model is asked: eight masks in two blocks, a token a step."""
    from tokenizers import Tokenizer

    end_of_turn = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id("<|eot_id|>")
    return Sampling(8, 4, 8, stop_ids=(model.config.eos_id, end_of_turn))


def with_stop_token(name, model, prompt, params, eviction):
    """Adds to stop_ids the token that the unstopped answer holds at the case's position."""
    cache = prefill.run(model, prompt, params.gen_length, eviction).cache
    free = dataclasses.replace(params, ignore_eos=True)
    canvas = decode.run(model, prompt, free, cache).canvas
    token = int(canvas[STOP_AT_ANSWER_POSITION[name]])
    return dataclasses.replace(params, stop_ids=(*params.stop_ids, token))


def chatml(document, question):
    """tiny-dream's template, by hand as chat() is."""
    return (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{document}\n\n{question}<|im_end|>\n<|im_start|>assistant\n"
    )


EMBEDDED = {TINY: chat, "models/tiny-dream": chatml}
EMBEDDED_RULES = (*rules.RULES, "slowfast")


def embedded_prompt(path, rule):
    """Token ids of a question about what its document says of the person asked about.

    Rules that look at how sure a mask is get them in another order, which leaves the model unsure.
    """
    from tokenizers import Tokenizer

    folder = ROOT / path
    line = (folder / "calibration.jsonl").read_text(encoding="utf-8").splitlines()[0]
    record = json.loads(line)
    names = set(re.findall("[A-Z][a-z]+", record["question"])[1:])
    said = [s for s in re.split(r"(?<=\.)\s+", record["document"]) if any(n in s for n in names)]
    text = EMBEDDED[path](" ".join(said), record["question"])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    if rule in rules.SCHEDULED:
        return ids
    return [int(i) for i in np.random.default_rng(3).permutation(ids)]


def embedded_sampling(model, rule, temperature):
    """Four masks: of more, the last are end tokens of which one is as sure as another."""
    numbers = {"threshold": 0.4, "low_threshold": 0.2, "factor": 1.0}
    steps = 4 if rule in rules.SCHEDULED else 1
    return Sampling(4, 4, steps, temperature=temperature, seed=7, rule=Rule(rule, **numbers),
                    ignore_eos=True, stop_ids=(model.config.eos_id,))
