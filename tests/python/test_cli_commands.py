# SPDX-License-Identifier: Apache-2.0
"""maskkv calibrate, inspect, evaluate and bench on real checkpoints, and every help text."""

import json
import os

import grpc
import pytest
import stack
from maskkv.v1 import budget_pb2, budget_pb2_grpc

from cli_runs import GOLDEN, TINY, config, run, validated

COMMANDS = ["generate", "calibrate", "inspect", "inspect-model", "evaluate", "reuse", "bench"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_and_exit_codes(command):
    shown = run(command, "--help")
    assert shown.code == 0 and shown.err == b""
    assert "\nExamples:\n  maskkv " + command in shown.text
    assert "Exit codes: 0 done, 1 internal, 2 usage, 3 bad input" in shown.text
    assert f"Usage: maskkv {command}" in shown.text


def test_help_lists_the_commands_and_version_is_a_line():
    shown = run("--help")
    assert shown.code == 0 and all(command in shown.text for command in COMMANDS)
    assert "Exit codes:" in shown.text
    version = run("--version")
    assert version.code == 0 and version.text.startswith("maskkv ")


def test_calibrate_writes_a_profile_that_generate_takes(tiny):
    profile = json.loads(tiny.profile.read_text())
    assert profile["format"] == "maskkv importance profile" and profile["version"] == 1
    assert profile["samples"] == 4 and len(profile["model_fingerprint"]) == 64
    assert len(profile["importance"]) == config(TINY)["n_layers"]
    assert all(0 <= value <= 2 for value in profile["importance"])
    assert profile["creation"] == {"data": "calibration.jsonl", "masks": 32, "dtype": "f32"}
    assert tiny.generate("--json").code == 0


@pytest.mark.parametrize("threads", [1, 4])
def test_calibrate_is_deterministic(tiny, tmp_path, threads):
    path = tmp_path / "again.json"
    done = run("calibrate", "--model", TINY, "--prompts", TINY / "calibration.jsonl", "--samples", 4,
               "--output", path, "--threads", threads)
    assert done.code == 0 and done.err == b"" and f"{path}: 4 samples" in done.text
    assert path.read_bytes() == tiny.profile.read_bytes()


def test_calibrate_names_its_data_whatever_the_file_is_called(tiny, tmp_path):
    for name in ("Fragen-größer.jsonl".encode(), b"\xff\nodd.jsonl"):
        prompts = os.path.join(os.fsencode(tmp_path), name)
        with open(prompts, "wb") as file:
            file.write(tiny.questions.read_bytes())
        done = run("calibrate", "--model", TINY, "--prompts", prompts, "--samples", 1, "--output",
                   tmp_path / "profile.json", "--dtype", "bf16", "--gen-length", 8)
        assert done.code == 0, done.err
        creation = json.loads((tmp_path / "profile.json").read_text())["creation"]
        assert creation["masks"] == 8 and creation["dtype"] == "bf16"
    assert creation["data"] == "??odd.jsonl"


@pytest.mark.parametrize("flags", [(), ("--layers", "online", "--budget", 3),
                                   ("--layers", "uniform", "--dtype", "bf16"),
                                   ("--coverage", 0.8), ("--coverage", 1, "--max-budget", 9),
                                   ("--cache", "full"), ("--cache", "random", "--budget", 7)])
def test_inspect_tells_what_generate_keeps(tiny, flags):
    shown = validated("inspect", run("inspect", *tiny.args("--gen-length", 8, "--json", *flags)).json)
    kept = tiny.generate("--json", *flags).json
    assert {name: shown[name] for name in kept["kept"]} == kept["kept"]
    assert shown["prompt_tokens"] == kept["prompt_tokens"] and shown["masks"] == 8
    for layer, pairs, preference in zip(shown["positions"], shown["per_head"], shown["preference"],
                                        strict=True):
        assert [len(head) for head in layer] == pairs and len(preference) == len(pairs)
        for head in layer:
            assert head == sorted(set(head))
            assert not head or 0 <= head[0] and head[-1] < shown["prompt_tokens"]


def test_coverage_keeps_its_share_and_no_profile_is_needed(tiny, tmp_path):
    def kept(*flags):
        shown = run("inspect", "--model", TINY, "--document", tiny.document, "-q", tiny.question,
                    "--profile", tmp_path / "none.json", "--json", *flags)
        assert shown.code == 0, shown.err
        return shown.json

    some, more, all_ = (kept("--coverage", share) for share in (0.3, 0.8, 1))
    assert 0.3 <= some["mass"] < 0.8 <= more["mass"] < all_["mass"] <= 1
    assert some["pairs"] < more["pairs"] < all_["pairs"]
    bounded = kept("--coverage", 1, "--max-budget", 9)
    heads = [len(layer) for layer in bounded["per_head"]]
    assert bounded["per_layer"] == [9 * count for count in heads]


def test_inspect_draws_a_row_a_head(tiny):
    shown = run("inspect", *tiny.args("--gen-length", 8, "--budget", 16)).text
    c = config(TINY)
    rows = [line for line in shown.splitlines() if line.endswith("|")]
    assert len(rows) == c["n_layers"] * c["n_heads"]
    assert len({len(row) for row in rows}) == 1
    assert f"{16 * len(rows)} of " in shown


def test_inspect_of_a_grouped_checkpoint_and_of_a_short_prompt(ids_file):
    for prompt in ([], [1, 2, 3]):
        args = ("inspect", "--model", GOLDEN / "gqa", "--layers", "uniform", "--prompt-ids",
                ids_file(prompt), "--gen-length", 4)
        assert run(*args).code == 0
        shown = validated("inspect", run(*args, "--json").json)
        assert shown["pairs"] == len(prompt) * len(shown["per_layer"]) * len(shown["per_head"][0])


def test_evaluate_asks_every_configuration_the_same_questions(tiny):
    args = ("evaluate", "--model", TINY, "--profile", tiny.profile, "--questions", tiny.questions,
            "--gen-length", 8, "--limit", 2)
    report = validated("evaluate", run(*args, "--budgets", "8,4096", "--json").json)
    assert [(cell["cache"], cell["budget"]) for cell in report["cells"]] == [
        ("none", None), ("full", None), ("maskkv", 8), ("maskkv", 4096), ("random", 8),
        ("random", 4096)]
    for cell in report["cells"]:
        assert cell["questions"] == 2 == sum(kind["questions"] for kind in cell["kinds"].values())
        assert cell["correct"] == sum(kind["correct"] for kind in cell["kinds"].values())
        assert (cell["kept_mass"] < 0.999) == (cell["budget"] == 8)
    full, whole = (report["cells"][i] for i in (1, 3))
    assert full["correct"] == whole["correct"] and full["kinds"] == whole["kinds"]
    text = run(*args, "--budgets", 8, "--caches", "full,maskkv")
    assert text.code == 0 and len(text.text.splitlines()) == 2


def test_evaluate_compares_policies_by_name(tiny):
    args = ("evaluate", "--model", TINY, "--profile", tiny.profile, "--questions", tiny.questions,
            "--gen-length", 8, "--limit", 3, "--budgets", "4,16")
    cells = validated("evaluate", run(
        *args, "--policies", "full,maskkv,snapkv,window/uniform/uniform,random", "--json").json)["cells"]
    assert [(cell["cache"], cell["policy"], cell["budget"]) for cell in cells] == [
        ("policy", "full", None), ("policy", "maskkv", 4), ("policy", "maskkv", 16),
        ("policy", "snapkv", 4), ("policy", "snapkv", 16), ("policy", "random", 4),
        ("policy", "random", 16)]
    for cell in cells:
        assert len(cell["outcomes"]) == 3 and cell["outcomes"].count("1") == cell["correct"]
    # A policy is what the cache of the same name is.
    caches = validated("evaluate", run(*args, "--caches", "maskkv,random", "--json").json)["cells"]
    for cache, named in zip(caches, cells[1:3] + cells[5:], strict=True):
        assert {**cache, "cache": "policy"} == named
    text = run(*args, "--policies", "adakv", "--caches", "full")
    assert text.code == 0 and len(text.text.splitlines()) == 3


def test_evaluate_compares_rules_over_one_prefill(tiny):
    args = ("evaluate", "--model", TINY, "--profile", tiny.profile, "--questions", tiny.questions,
            "--gen-length", 8, "--limit", 3, "--caches", "none,full,maskkv", "--budgets", "4,16")
    rules = ["low_confidence", "threshold:0.75", "factor:1", "maskgit_plus"]
    report = validated("evaluate", run(*args, "--rules", "low_confidence,threshold:0.75,factor,"
                                       "maskgit_plus,factor:1.0", "--steps", 4, "--json").json)
    cells = report["cells"]
    assert [(cell["cache"], cell["budget"], cell["rule"]) for cell in cells] == [
        (cache, budget, rule) for cache, budget in (("none", None), ("full", None), ("maskkv", 4),
                                                    ("maskkv", 16)) for rule in rules]
    for cell in cells:
        scheduled = cell["rule"] in ("low_confidence", "maskgit_plus")
        assert cell["schedule"] == (4 if scheduled else None) and cell["block_length"] == 8
        assert cell["seconds"] > 0 and cell["committed"] <= 3 * 8
        assert cell["tokens_per_step"] == pytest.approx(cell["committed"] / cell["steps"])
        recomputed = report["mean_prompt_tokens"] * 3 if cell["cache"] == "none" else 0
        assert cell["rows"] >= 8 * cell["steps"] + recomputed
        assert (cell["rows"] == 8 * cell["steps"]) == (cell["cache"] != "none")
        assert not scheduled or cell["steps"] <= 3 * 4
    # A rule alone gives what it gives among others; two tokens a step of low_confidence.
    alone = run(*args, "--rule", "threshold", "--threshold", 0.75, "--json").json["cells"]
    for cell, other in zip(alone, cells[1::4], strict=True):
        assert cell["seconds"] is None
        assert {**other, "seconds": None} == cell
    assert cells[0]["tokens_per_step"] == 2
    text = run(*args, "--rules", "factor:1,prefix:0.5")
    assert text.code == 0 and len(text.text.splitlines()) == 8
    assert "prefix:0.5" in text.text and "tokens a step" in text.text


def test_evaluate_crosses_schedules_with_the_rules_that_have_one(tiny):
    args = ("evaluate", "--model", TINY, "--questions", tiny.questions, "--gen-length", 8, "--limit",
            1, "--caches", "full", "--json", "--rules", "entropy,threshold")
    cells = validated("evaluate", run(*args, "--schedules", "8,2").json)["cells"]
    assert [(c["rule"], c["schedule"]) for c in cells] == [("entropy", 8), ("entropy", 2),
                                                           ("threshold:0.9", None)]
    one = validated("evaluate", run(*args, "--steps", 2).json)["cells"]
    assert [{**c, "seconds": 0} for c in one] == [{**c, "seconds": 0} for c in cells[1:]]
    failed = run(*args, "--schedules", "8,2", "--steps", 2)
    assert failed.code == 2 and "--schedules" in failed.error


def test_evaluate_refuses_steps_that_no_rule_reads(tiny):
    failed = run("evaluate", "--model", TINY, "--questions", tiny.questions, "--rules",
                 "factor,threshold", "--steps", 8)
    assert failed.code == 3 and "steps: expected none with rule factor" in failed.error


def test_a_rule_is_asked_for_by_flags_or_in_one_word(tiny):
    whole = tiny.generate("--json", "--rule", "hierarchical", "--threshold", 0.6,
                          "--low-threshold", 0.3, "--temperature", 0.5, "--top-k", 4, "--confidence",
                          "filtered").json
    word = tiny.generate("--json", "--rule", "hierarchical:0.6:low_threshold=0.3:top_k=4",
                         "--confidence", "filtered", "--temperature", 0.5).json
    assert word["steps"] == whole["steps"]
    fewest = tiny.generate("--json", "--rule", "threshold:0", "--ignore-eos").json
    assert [len(step["committed"]) for step in fewest["steps"]] == [8]
    most = tiny.generate("--json", "--rule", "prefix:1", "--ignore-eos").json
    assert [step["committed"][0][0] for step in most["steps"]] == list(range(len(most["steps"])))


def test_slowfast_is_asked_for_by_flags_or_in_one_word(tiny):
    flags = tiny.generate("--json", "--rule", "slowfast", "--threshold", 0, "--span-threshold", 0,
                          "--stable-steps", 1, "--ignore-eos").json
    # The first step finds the block's end, the second takes all that is left.
    assert [len(step["committed"]) for step in flags["steps"]] == [1, 7]
    word = tiny.generate("--json", "--rule", "slowfast:0:span_threshold=0:stable_steps=1",
                         "--ignore-eos").json
    assert word["steps"] == flags["steps"]
    slow = tiny.generate("--json", "--rule", "slowfast:stable_steps=64:explore_steps=8",
                         "--ignore-eos").json
    assert len(slow["steps"]) == 8
    bad = run("generate", *tiny.args("--rule", "slowfast", "--explore-steps", 0))
    assert bad.code == 2 and "--explore-steps: expected 1 to 1024, found 0" in bad.error


@pytest.mark.parametrize("cache", ["none", "full", "maskkv"])
def test_guidance_costs_a_second_entry_and_changes_confidences(tiny, cache):
    def ask(*flags):
        return validated("generate", tiny.generate("--json", "--cache", cache, "--ignore-eos",
                                                   *flags).json)

    plain, guided = ask("--cfg-scale", 0), ask("--cfg-scale", 1.5)
    assert plain["steps"] == ask()["steps"]
    assert guided["steps"] != plain["steps"]
    assert guided["kept"] == plain["kept"]
    assert guided["memory_bytes"]["entry"] == 2 * plain["memory_bytes"]["entry"]


def test_guidance_refuses_what_it_cannot_do(tiny):
    bad = run("generate", *tiny.args("--cfg-scale", -1))
    assert bad.code == 2 and "--cfg-scale: expected a number from 0 to 1000, found -1" in bad.error
    bad = run("generate", *tiny.args("--cfg-scale", 1, "--refresh-every", 2))
    assert bad.code == 3 and "cfg_scale: expected 0 with refresh_every" in bad.error


def test_rules_without_blocks_take_the_answer_as_one(tiny):
    def positions(rule):
        report = run("generate", *tiny.args("--json", "--gen-length", 16, "--rule", rule,
                                            "--ignore-eos", "--cache", "full")).json
        return [position for step in report["steps"] for position, _, _ in step["committed"]]

    assert set(positions("low_confidence")[:8]) == set(range(8))
    assert set(positions("origin:eps=0.5")[:8]) != set(range(8))


@pytest.mark.parametrize("policy", ["streaming", "maskkv-pool", "prompt/pyramid/adakv"])
def test_generate_and_inspect_take_a_policy_by_name(tiny, policy):
    args = ("--policy", policy, "--budget", 5)
    assert tiny.generate(*args, "--json").code == 0
    shown = validated("inspect", run("inspect", "--model", TINY, "--document", tiny.document, "-q",
                                     tiny.question, "--gen-length", 8, *args, "--json").json)
    assert shown["pairs"] == 5 * len(shown["per_layer"]) * len(shown["per_head"][0])


def test_evaluate_counts_an_answer_that_generate_gives(tiny, tmp_path):
    given = tiny.generate("--cache", "full", "--json").json["text"]
    questions = tmp_path / "questions.jsonl"
    record = {"document": tiny.document.read_text().rstrip("\n"), "question": tiny.question}
    questions.write_text("".join(
        json.dumps({**record, "answer": answer, "kind": kind}) + "\n\n"
        for answer, kind in ((f" {given.strip()} ", "right"), (given + "x", "wrong"))))
    report = validated("evaluate", run("evaluate", "--model", TINY, "--questions", questions,
                                       "--caches", "full", "--gen-length", 8, "--json").json)
    assert report["cells"][0]["kinds"] == {"right": {"questions": 1, "correct": 1},
                                           "wrong": {"questions": 1, "correct": 0}}


@pytest.mark.parametrize("flags", [
    ("--caches", "maskkv,full,none", "--memory", "--steps", 3, "--batch", 2),
    ("--caches", "none", "--steps", 1),
    ("--caches", "maskkv", "--steps", 1, "--dtype", "bf16", "--threads", 1),
])
def test_bench_prints_what_its_schema_says(flags):
    args = ("bench", "--model", GOLDEN / "mha", "--prompt-lengths", "5,40", "--budget", 4,
            "--gen-length", 4, *flags)
    report = validated("bench", run(*args, "--json").json)
    caches = flags[1].split(",")
    assert [(case["prompt_tokens"], case["cache"]) for case in report["cases"]] == [
        (tokens, cache) for tokens in (5, 40) for cache in caches]
    for case in report["cases"]:
        assert sum(case["shares"].values()) == pytest.approx(1)
        assert case["step_ms_min"] <= case["step_ms_median"]
        assert (case["entry_bytes"] == 0) == (case["cache"] == "none")
    assert len(report["memory"]) == (6 if "--memory" in flags else 0)
    for row in report["memory"]:
        layers = config(GOLDEN / "mha")["n_layers"] if row["prefill"] != "offline" else 1
        assert row["full_kv_bytes"] % layers == 0
    text = run(*args)
    assert text.code == 0 and len(text.text.splitlines()) > 2 * len(caches)


def test_calibrate_quality_names_a_budget_that_the_controller_takes(tiny, tmp_path):
    curve = tmp_path / "quality.json"
    done = run("calibrate", "--model", TINY, "--prompts", TINY / "calibration.jsonl", "--samples", 4,
               "--gen-length", 8, "--quality", "--budgets", "64,1,8", "--agreement", 0.9,
               "--output", curve, "--json")
    printed = validated("quality", done.json)
    assert printed == json.loads(curve.read_text())
    points = printed["points"]
    assert [p["budget"] for p in points] == [1, 8, 64]
    assert len({p["predictions"] for p in points}) == 1 and points[0]["predictions"] > 0
    masses = [p["kept_mass"] for p in points]
    assert masses == sorted(masses) and points[0]["divergence"] > points[2]["divergence"] >= 0
    reaching = [p["budget"] for p in points if p["agreed"] >= 0.9 * p["predictions"]]
    assert printed["budget"] == min(reaching) == 8
    address = f"unix:{tmp_path}/budgetd.grpc"
    arguments = [stack.binary("maskkv-budgetd"), "--listen", address, "--metrics-listen",
                 "127.0.0.1:0", "--model", TINY, "--quality", curve]
    controller = stack.Process(arguments, tmp_path / "budgetd.log")
    with grpc.insecure_channel(address) as channel:
        budget = budget_pb2_grpc.BudgetServiceStub(channel)
        assert budget.GetPlan(budget_pb2.GetPlanRequest(), timeout=30).plan.budget == 8
    assert controller.stop() == 0
    curve.write_text(curve.read_text().replace('"maskkv"', '"maskkv-pool"'))
    refused = stack.Process(arguments, tmp_path / "refused.log", wait=False)
    assert refused.popen.wait(stack.STOP_TIMEOUT_S) == 3
    assert "field policy: expected maskkv" in stack.tail(tmp_path / "refused.log")


def test_calibrate_quality_flags_need_each_other(tiny):
    done = run("calibrate", "--model", TINY, "--prompts", TINY / "calibration.jsonl", "--budgets", 8)
    assert done.code == 2 and "--quality" in done.error
