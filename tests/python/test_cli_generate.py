# SPDX-License-Identifier: Apache-2.0
"""maskkv generate on real checkpoints: its JSON is consistent, and equal runs give equal tokens."""

import itertools
import random

import pytest

from cli_runs import GOLDEN, TINY, config, run, stop_ids, validated

CHECKPOINTS = sorted(path.name for path in GOLDEN.iterdir())


def check_consistent(report, model, gen_length, cache, budget):
    """Every statement about the answer that follows from another one."""
    validated("generate", report)
    canvas = {}
    for step in report["steps"]:
        positions = [position for position, _, _ in step["committed"]]
        assert positions == sorted(positions)
        for position, token, _ in step["committed"]:
            assert 0 <= position < gen_length
            assert position not in canvas, f"position {position} committed twice"
            canvas[position] = token
    numbers = [step["step"] for step in report["steps"]]
    assert numbers == sorted(set(numbers))
    answer = []
    for position in itertools.count():
        if position not in canvas or canvas[position] in stop_ids(model):
            break
        answer.append(canvas[position])
    assert report["tokens"] == answer
    if report["finish_reason"] == "stop":
        assert canvas[len(answer)] in stop_ids(model)
    else:
        assert len(canvas) == gen_length
    assert len(report["timings_ms"]["steps"]) == len(report["steps"])
    check_kept(report, model, cache, budget)


def shape_of(model):
    """(layers, KV heads, prompt tokens that every step recomputes) by a checkpoint's config.json."""
    c = config(model)
    if "hidden_size" in c:
        return c["num_hidden_layers"], c["num_key_value_heads"], int(c["model_type"] == "Dream")
    heads = c["n_kv_heads"] or (1 if c["multi_query_attention"] else c["n_heads"])
    return c["n_layers"], heads, 0


def check_kept(report, model, cache, budget):
    kept, entry = report["kept"], report["memory_bytes"]["entry"]
    if cache == "none":
        assert kept is None and entry == 0 and report["timings_ms"]["prefill"] == 0
        return
    layers, heads, recomputed = shape_of(model)
    prompt = report["prompt_tokens"] - recomputed
    expected = (prompt if cache == "full" else min(budget, prompt)) * layers * heads
    assert kept["pairs"] == expected
    assert kept["per_layer"] == [sum(layer) for layer in kept["per_head"]]
    assert sum(kept["per_layer"]) == kept["pairs"]
    assert len(kept["per_head"]) == layers
    assert all(len(layer) == heads for layer in kept["per_head"])
    assert max(max(layer) for layer in kept["per_head"]) <= prompt
    assert kept["mass"] == pytest.approx(1, abs=1e-9) if expected == prompt * layers * heads \
        else kept["mass"] < 1
    if cache == "random":
        assert {pairs for layer in kept["per_head"] for pairs in layer} == {min(budget, prompt)}
    assert (entry > 0) == (kept["pairs"] > 0)


MODES = [
    ("maskkv", "offline", "f32", 24),
    ("maskkv", "offline", "bf16", 24),
    ("maskkv", "online", "f32", 5),
    ("maskkv", "uniform", "bf16", 1),
    ("full", "offline", "f32", 24),
    ("full", "offline", "bf16", 24),
    ("none", "offline", "f32", 24),
    ("none", "offline", "bf16", 24),
    ("random", "offline", "f32", 24),
    ("random", "offline", "bf16", 7),
]


@pytest.mark.parametrize("cache,layers,dtype,budget", MODES)
def test_each_mode_prints_consistent_json_over_a_document(tiny, cache, layers, dtype, budget):
    report = tiny.generate("--cache", cache, "--layers", layers, "--dtype", dtype,
                           "--budget", budget, "--json").json
    assert report["prompt_tokens"] > tiny.words
    check_consistent(report, TINY, 8, cache, budget)


@pytest.mark.parametrize("name", CHECKPOINTS)
@pytest.mark.parametrize("cache,layers", [("maskkv", "online"), ("maskkv", "uniform"),
                                          ("full", "offline"), ("none", "offline"),
                                          ("random", "offline")])
def test_each_layout_of_checkpoint_runs_from_ids(ids_file, name, cache, layers):
    model = GOLDEN / name
    draw = random.Random(1)
    prompt = [draw.randrange(config(model)["vocab_size"] - 2) for _ in range(19)]
    report = run("generate", "--model", model, "--prompt-ids", ids_file(prompt), "--cache", cache,
                 "--layers", layers, "--gen-length", 6, "--block-length", 3, "--steps", 4,
                 "--budget", 5, "--json").json
    assert report["prompt_tokens"] == 19 and report["text"] == ""
    check_consistent(report, model, 6, cache, 5)


@pytest.mark.parametrize("cache", ["maskkv", "none"])
def test_a_pipe_gets_the_text_and_a_newline(tiny, cache):
    text = tiny.generate("--cache", cache)
    assert text.code == 0 and text.err == b""
    assert text.text == tiny.generate("--cache", cache, "--json").json["text"] + "\n"


def test_sampled_text_streams_whole_characters(tiny):
    more = ("--temperature", 2, "--ignore-eos", "--steps", 8, "--seed", 3)
    assert tiny.generate(*more).text == tiny.generate(*more, "--json").json["text"] + "\n"


def test_a_document_from_standard_input_is_the_same_prompt(tiny):
    one = tiny.generate("--json").json
    two = run("generate", "--model", TINY, "--profile", tiny.profile, "--document", "-",
              "--question", tiny.question, "--gen-length", 8, "--json",
              stdin=tiny.document.read_bytes()).json
    assert (one["prompt_tokens"], one["steps"], one["kept"]) == \
        (two["prompt_tokens"], two["steps"], two["kept"])


def test_ids_from_standard_input(tiny):
    report = run("generate", "--model", TINY, "--prompt-ids", "-", "--cache", "none",
                 "--gen-length", 4, "--json", stdin=b"[1, 2, 3]").json
    assert report["prompt_tokens"] == 3


def test_a_question_adds_to_the_prompt_and_may_be_absent(tiny):
    with_question = tiny.generate("--json").json["prompt_tokens"]
    without = run("generate", "--model", TINY, "--document", tiny.document, "--cache", "none",
                  "--gen-length", 8, "--json").json["prompt_tokens"]
    assert 0 < without < with_question


@pytest.mark.parametrize("flags", [("--cache", "maskkv"), ("--cache", "none", "--dtype", "bf16"),
                                   ("--cache", "random", "--temperature", 1, "--seed", 5)])
def test_threads_do_not_change_tokens(tiny, flags):
    steps = [tiny.generate(*flags, "--threads", threads, "--json").json["steps"]
             for threads in (1, 2, 4, 2)]
    assert steps[0] == steps[1] == steps[2] == steps[3]


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_a_budget_of_the_whole_prompt_equals_full(tiny, dtype):
    more = ("--temperature", 0.7, "--seed", 11, "--ignore-eos", "--dtype", dtype, "--json")
    full = tiny.generate("--cache", "full", *more).json
    whole = tiny.generate("--cache", "maskkv", "--budget", full["prompt_tokens"], *more).json
    more_than_whole = tiny.generate("--cache", "maskkv", "--budget", 1 << 24, *more).json
    assert full["steps"] == whole["steps"] == more_than_whole["steps"]
    assert full["kept"]["pairs"] == whole["kept"]["pairs"] == more_than_whole["kept"]["pairs"]


def test_another_seed_samples_another_answer(tiny):
    more = ("--temperature", 3, "--ignore-eos", "--cache", "full", "--json")
    first, second = (tiny.generate(*more, "--seed", seed).json for seed in (1, 2))
    assert first["steps"] != second["steps"]
    assert first["steps"] == tiny.generate(*more, "--seed", 1).json["steps"]


def test_the_largest_seed_is_accepted(tiny):
    assert tiny.generate("--temperature", 1, "--seed", 2**64 - 1, "--json").code == 0


@pytest.mark.parametrize("steps", [2, 8, 16])
def test_ignore_eos_decides_every_position(tiny, steps):
    report = tiny.generate("--ignore-eos", "--block-length", 4, "--steps", steps, "--json").json
    check_consistent(report, TINY, 8, "maskkv", 64)
    assert sum(len(step["committed"]) for step in report["steps"]) == 8
    assert len(report["steps"]) == min(steps, 8)
    assert report["finish_reason"] == "length"


def test_suppress_eos_never_commits_the_checkpoints_eos(tiny):
    report = tiny.generate("--suppress-eos", "--ignore-eos", "--json").json
    tokens = [token for step in report["steps"] for _, token, _ in step["committed"]]
    assert len(tokens) == 8 and config(TINY)["eos_token_id"] not in tokens


def test_an_empty_prompt_is_answered(ids_file):
    report = run("generate", "--model", TINY, "--prompt-ids", ids_file([]), "--cache", "full",
                 "--gen-length", 4, "--json").json
    assert report["prompt_tokens"] == 0
    check_consistent(report, TINY, 4, "full", 0)
