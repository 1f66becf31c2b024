# SPDX-License-Identifier: Apache-2.0
"""What maskkv says when it is used wrongly: the documented exit code and exactly one line on standard
error that names the thing, what was expected and what was found; nothing on standard output."""

import json
import pathlib
import resource
import shutil
import subprocess

import pytest

from cli_runs import GOLDEN, TINY, binary, run

USAGE, BAD_INPUT, NO_RESOURCES = 2, 3, 4

# (flag, value, what the message says)
BAD_VALUES = [
    ("--dtype", "f16", "expected one of f32, bf16, int8, found f16"),
    ("--kv-dtype", "f16", "expected one of f32, bf16, int8, found f16"),
    ("--threads", "-1", "expected an integer from 0 to 1024, found -1"),
    ("--threads", "1025", "expected an integer from 0 to 1024, found 1025"),
    ("--gen-length", "0", "expected an integer from 1 to 16777216, found 0"),
    ("--gen-length", "8.5", "found 8.5"),
    ("--gen-length", "99999999999999999999", "found 99999999999999999999"),
    ("--block-length", "0", "found 0"),
    ("--block-length", "-8", "found -8"),
    ("--steps", "0", "found 0"),
    ("--steps", "many", "found many"),
    ("--temperature", "-0.5", "expected a number from 0 to 1000, found -0.5"),
    ("--temperature", "nan", "found nan"),
    ("--temperature", "inf", "found inf"),
    ("--temperature", "1e999", "found 1e999"),
    ("--temperature", "warm", "found warm"),
    ("--rule", "greedy", "expected one of low_confidence, random, "),
    ("--rule", "threshold:2", "threshold: expected a number from 0 to 1, found 2"),
    ("--rule", "random:2", "expected NAME=VALUE after random:, found 2"),
    ("--rule", "", "expected one of low_confidence, random, "),
    ("--confidence", "both", "expected one of rule, raw, filtered, found both"),
    ("--top-p", "0", "expected a number above 0, at most 1, found 0"),
    ("--top-k", "-1", "expected 0 (off) or more, found -1"),
    ("--top-k", "1.5", "expected an integer, found 1.5"),
    ("--eps", "1", "expected a number between 0 and 1, found 1"),
    ("--alg-temp", "-1", "found -1"),
    ("--threshold", "1.5", "expected a number from 0 to 1, found 1.5"),
    ("--threshold", "nan", "expected a finite number, found nan"),
    ("--low-threshold", "", "expected a finite number, found nothing"),
    ("--factor", "inf", "expected a finite number, found inf"),
    ("--seed", "-1", "expected an integer from 0 to 18446744073709551615, found -1"),
    ("--seed", "18446744073709551616", "found 18446744073709551616"),
    ("--seed", "1.0", "found 1.0"),
    ("--cache", "some", "expected one of maskkv, full, none, random, found some"),
    ("--layers", "sideways", "expected one of offline, online, uniform, found sideways"),
    ("--rope-scaling", "0.5", "expected none, longllada or a finite number from 1, found 0.5"),
    ("--rope-scaling", "ntk", "found ntk"),
    ("--rope-scaling", "nan", "found nan"),
    ("--rope-scaling", "inf", "found inf"),
    ("--rope-scaling", "1e999", "found 1e999"),
    ("--rope-scaling", "", "found nothing"),
    ("--budget", "0", "expected an integer from 1 to 16777216, found 0"),
    ("--budget", "-5", "found -5"),
    ("--budget", "0x10", "found 0x10"),
    ("--budget", "010", "found 010"),
    ("--budget", "1e3", "found 1e3"),
    ("--budget", "64pairs", "found 64pairs"),
    ("--budget", "", "found nothing"),
    ("--coverage", "1.5", "expected a number from 0 to 1, found 1.5"),
    ("--coverage", "nan", "found nan"),
    ("--alpha", "2", "expected a number from 0 to 1, found 2"),
    ("--alpha", "nan", "found nan"),
    ("--beta", "-0.1", "expected a number from 0 to 1, found -0.1"),
    ("--beta", "half", "found half"),
]


@pytest.mark.parametrize("flag,value,said", BAD_VALUES)
def test_a_bad_flag_value(tiny, flag, value, said):
    for cache in ("none", "maskkv"):
        more = () if flag == "--cache" else ("--cache", cache)
        failed = run("generate", "--model", TINY, "--document", tiny.document, *more, flag, value)
        assert failed.code == USAGE
        assert f"{flag}: " in failed.error and said in failed.error


@pytest.mark.parametrize("args,said", [
    ((), "subcommand: expected generate, calibrate, inspect, inspect-model, evaluate, reuse, bench, "
         "serve or top, found nothing"),
    (("frobnicate",), "found frobnicate"),
    (("",), "found nothing"),
    (("generate",), "--model is required"),
    (("generate", "--model", TINY, "--frobnicate"), "--frobnicate"),
    (("generate", "--model"), "--model"),
    (("generate", "--model", TINY, "--document", "a", "--prompt-ids", "b"), "--prompt-ids"),
    (("generate", "--model", TINY, "-q", "Who?"), "--document"),
    (("generate", "--model", TINY, "--budget", 1, "--budget", 2), "--budget"),
    (("generate", "extra", "--model", TINY), "extra"),
    (("generate", "--model", TINY, "--budget", 1, "--coverage", 0.5), "--coverage"),
    (("generate", "--model", TINY, "--max-budget", 5), "--coverage"),
    (("calibrate", "--model", TINY), "--prompts is required"),
    (("calibrate", "--model", TINY, "--prompts", "x", "--samples", "-1"), "--samples"),
    (("evaluate", "--model", TINY), "--questions is required"),
    (("evaluate", "--model", TINY, "--questions", "x", "--budgets", "8,0"), "--budgets"),
    (("evaluate", "--model", TINY, "--questions", "x", "--caches", "full,all"), "--caches"),
    (("evaluate", "--model", TINY, "--questions", "x", "--policies", "full,h2o"),
     "--policies: expected one of maskkv, "),
    (("evaluate", "--model", TINY, "--questions", "x", "--rules", "threshold,greedy"),
     "--rules: expected one of low_confidence, "),
    (("evaluate", "--model", TINY, "--questions", "x", "--rules", "factor", "--rule", "factor"),
     "--rule"),
    (("generate", "--model", TINY, "--policy", "h2o"), "--policy: expected one of maskkv, "),
    (("generate", "--model", TINY, "--policy", "recent/uniform/adakv"), "--policy: heads: "),
    (("generate", "--model", TINY, "--policy", "snapkv", "--cache", "full"), "--policy"),
    (("inspect", "--model", TINY, "--policy", "snapkv", "--layers", "online"), "--policy"),
    (("bench", "--model", TINY, "--prompt-lengths", "16,x"), "--prompt-lengths"),
    (("bench", "--model", TINY, "--caches", "random"), "--caches"),
    (("bench", "--model", TINY, "--batch", "0"), "--batch"),
    (("inspect", "--model", TINY, "--gen-length", "0"), "--gen-length"),
])
def test_a_bad_command_line(args, said):
    failed = run(*args)
    assert failed.code == USAGE
    assert said in failed.error and "see --help" in failed.error


@pytest.mark.parametrize("flags,said", [
    (("--gen-length", 10, "--block-length", 4),
     "gen_length: expected a multiple of block_length 4, found 10"),
    (("--gen-length", 8, "--block-length", 4, "--steps", 5),
     "steps: expected a multiple of the 2 blocks (gen_length / block_length), found 5"),
    (("--rule", "threshold", "--steps", 8),
     "steps: expected none with rule threshold, which runs until nothing is masked, found 8"),
])
def test_flags_that_do_not_go_together(tiny, flags, said):
    failed = run("generate", "--model", TINY, "--document", tiny.document, "--cache", "none", *flags)
    assert failed.code == BAD_INPUT and said in failed.error


def test_a_coverage_is_maskkvs_alone(tiny):
    failed = run("generate", "--model", TINY, "--document", tiny.document, "--policy", "snapkv",
                 "--coverage", 0.5)
    assert failed.code == BAD_INPUT
    assert "--coverage: expected --policy maskkv, found --policy snapkv" in failed.error


@pytest.mark.parametrize("command", ["generate", "inspect"])
def test_no_prompt(command):
    failed = run(command, "--model", TINY, "--cache", "full")
    assert failed.code == BAD_INPUT
    assert "prompt: expected --document or --prompt-ids, found neither" in failed.error


# (contents of the file for --prompt-ids, what the message says)
BAD_IDS = [
    ("", "expected a JSON array of token ids, found no JSON"),
    ("1 2 3", "found no JSON"),
    ("[1, 2", "found no JSON"),
    ("[1] [2]", "found no JSON"),
    ('{"ids": [1]}', "expected a JSON array of token ids, found object"),
    ("7", "found number"),
    ("null", "found null"),
    ("[1, -2]", "element 1: expected a token id from 0 to 2147483647, found -2"),
    ("[1.5]", "element 0: expected a token id from 0 to 2147483647, found 1.5"),
    ("[1e2]", "found 100.0"),
    ("[2147483648]", "found 2147483648"),
    ("[99999999999999999999999]", "element 0"),
    ('["1"]', 'found "1"'),
    ("[true]", "found true"),
    ("[null]", "found null"),
    ("[3, [4]]", "element 1: expected a token id from 0 to 2147483647, found array"),
    ("[{}]", "found object"),
    ("[" + "[" * 300_000 + "]" * 300_000 + "]", "found array"),
    ("[1, 1443]", "position 1: expected an id from 0 to 1442, found 1443"),
    ("[1, 2, 1442]", "position 2: expected no mask token, found the mask id 1442"),
]


@pytest.mark.parametrize("text,said", BAD_IDS, ids=lambda value: value[:30])
def test_bad_prompt_ids(ids_file, text, said):
    config = json.loads((TINY / "config.json").read_text())
    rows, mask = config["embedding_size"], config["mask_token_id"]
    swap = {"1443": str(rows), "1442]": f"{mask}]", "to 1442": f"to {rows - 1}",
            "id 1442": f"id {mask}"}
    for old, new in swap.items():
        text, said = text.replace(old, new), said.replace(old, new)
    path = ids_file(text)
    failed = run("generate", "--model", TINY, "--cache", "none", "--gen-length", 4,
                 "--prompt-ids", path)
    assert failed.code == BAD_INPUT
    assert said in failed.error
    assert str(path) in failed.error or "prompt: " in failed.error


@pytest.mark.parametrize("content,said", [
    (b"abc\xff\xfe", "expected UTF-8, found byte 0xff at offset 3"),
    (b"\xed\xa0\x80", "offset 0"),
    (b"half a character \xe2\x82", "offset 17"),
])
def test_a_document_that_is_not_utf8(tmp_path, content, said):
    path = tmp_path / "document.txt"
    path.write_bytes(content)
    failed = run("generate", "--model", TINY, "--document", path, "--cache", "none")
    assert failed.code == BAD_INPUT
    assert f"{path}: " in failed.error and said in failed.error
    piped = run("generate", "--model", TINY, "--document", "-", "--cache", "none", stdin=content)
    assert piped.code == BAD_INPUT and said in piped.error


def test_a_question_that_is_not_utf8(tiny):
    failed = run("generate", "--model", TINY, "--document", tiny.document, "-q", b"\xffWho?")
    assert failed.code == BAD_INPUT and "--question: expected UTF-8" in failed.error


@pytest.mark.parametrize("flag", ["--document", "--prompt-ids"])
def test_an_input_that_cannot_be_read(tmp_path, flag):
    for path in (tmp_path / "absent", tmp_path):
        failed = run("generate", "--model", TINY, "--cache", "none", flag, path)
        assert failed.code == BAD_INPUT
        assert f"{path}: expected a readable file, found" in failed.error


def test_a_file_name_cannot_add_lines_or_colours(tmp_path):
    failed = run("generate", "--model", TINY, "--cache", "none", "--document",
                 tmp_path / "two\nlines\x1b[31m")
    assert failed.code == BAD_INPUT and "\x1b" not in failed.error


@pytest.fixture
def copy_of_tiny(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(TINY, folder)
    return folder


def generate(model, *more):
    return run("generate", "--model", model, "--document", "-", "--cache", "none", *more,
               stdin=b"Text.")


def test_a_model_that_is_not_there(tmp_path):
    failed = generate(tmp_path / "absent")
    assert failed.code == BAD_INPUT and str(tmp_path / "absent") in failed.error


def test_an_empty_folder_as_model(tmp_path):
    failed = generate(tmp_path)
    assert failed.code == BAD_INPUT and "config.json" in failed.error


@pytest.mark.parametrize("kept", [0, 7, 4000, 100_000])
def test_truncated_weights(copy_of_tiny, kept):
    weights = copy_of_tiny / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    failed = generate(copy_of_tiny)
    assert failed.code == BAD_INPUT and str(weights) in failed.error
    assert "expected" in failed.error and "found" in failed.error


def test_absent_weights(copy_of_tiny):
    (copy_of_tiny / "model.safetensors").unlink()
    failed = generate(copy_of_tiny)
    assert failed.code == BAD_INPUT and "model.safetensors" in failed.error


@pytest.mark.parametrize("change,field", [
    ({"n_layers": 0}, "n_layers"),
    ({"n_layers": "5"}, "n_layers"),
    ({"d_model": 255}, "d_model"),
    ({"mask_token_id": None}, "mask_token_id"),
    ({"mask_token_id": 10**9}, "mask_token_id"),
    ({"rope_theta": -1}, "rope_theta"),
    ({"activation_type": "gelu"}, "activation_type"),
])
def test_a_corrupt_config(copy_of_tiny, change, field):
    path = copy_of_tiny / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    failed = generate(copy_of_tiny)
    assert failed.code == BAD_INPUT
    assert str(path) in failed.error and field in failed.error
    assert "expected" in failed.error and "found" in failed.error


def test_a_config_and_a_tokenizer_that_are_not_json(copy_of_tiny):
    for name in ("tokenizer.json", "config.json"):
        (copy_of_tiny / name).write_text('{"a": ')
        failed = generate(copy_of_tiny)
        assert failed.code == BAD_INPUT and name in failed.error


def test_text_needs_a_tokenizer(ids_file):
    model = GOLDEN / "mha"
    ids = ids_file([1, 2, 3])
    asked = run("generate", "--model", model, "--document", "-", "--cache", "none", "--json",
                stdin=b"Text.")
    assert asked.code == BAD_INPUT and "tokenizer.json" in asked.error
    printed = run("generate", "--model", model, "--prompt-ids", ids, "--cache", "none",
                  "--gen-length", 2)
    assert printed.code == BAD_INPUT and "use --json" in printed.error


@pytest.mark.parametrize("args", [("generate", "--document", "-"), ("inspect", "--document", "-"),
                                  ("evaluate", "--caches", "maskkv", "--questions")])
def test_a_missing_profile_says_how_to_make_one(tiny, tmp_path, args):
    profile = tmp_path / "absent.json"
    more = (tiny.questions,) if args[0] == "evaluate" else ()
    failed = run(args[0], "--model", TINY, "--profile", profile, *args[1:], *more, stdin=b"Text.")
    assert failed.code == BAD_INPUT
    assert str(profile) in failed.error and "run maskkv calibrate" in failed.error


def test_a_profile_of_another_model(tiny, ids_file):
    failed = run("generate", "--model", GOLDEN / "mha", "--prompt-ids", ids_file([1, 2]),
                 "--gen-length", 2, "--profile", tiny.profile, "--json")
    assert failed.code == BAD_INPUT
    assert f"{tiny.profile}: field model_fingerprint: expected" in failed.error
    assert "run maskkv calibrate" in failed.error


@pytest.mark.parametrize("text,said", [
    ("{}", "expected"),
    ("[" * 100_000, "expected"),
    (None, "importance"),
])
def test_a_corrupt_profile(tiny, tmp_path, text, said):
    if text is None:
        profile = json.loads(pathlib.Path(tiny.profile).read_text())
        profile["importance"] = profile["importance"][:-1]
        text = json.dumps(profile)
    path = tmp_path / "profile.json"
    path.write_text(text)
    failed = run("generate", "--model", TINY, "--document", tiny.document, "--profile", path)
    assert failed.code == BAD_INPUT and said in failed.error


@pytest.mark.parametrize("line,said", [
    ("", "expected at least one question"),
    ("not json", "line 1: expected a JSON object, found no JSON"),
    ("[1]", "line 1: expected a JSON object, found array"),
    ('{"question": "Who?"}', "line 1: field document: expected a string, found nothing"),
    ('{"document": "D", "question": 5}', "field question: expected a string, found number"),
    ('{"document": "D", "question": "Q", "kind": "k"}', "field answer"),
    ('{"document": "D", "question": "Q", "answer": "a"}', "field kind"),
])
def test_a_bad_file_of_questions(tmp_path, line, said):
    path = tmp_path / "questions.jsonl"
    path.write_text(line + "\n")
    failed = run("evaluate", "--model", TINY, "--questions", path, "--caches", "none")
    assert failed.code == BAD_INPUT and str(path) in failed.error and said in failed.error


def test_calibrate_says_at_once_that_its_output_has_no_place(tiny, tmp_path):
    output = tmp_path / "absent/profile.json"
    failed = run("calibrate", "--model", TINY, "--prompts", tiny.questions, "--output", output)
    assert failed.code == BAD_INPUT and str(output) in failed.error


def test_random_pairs_have_no_coverage(tiny):
    failed = run("inspect", *tiny.args("--cache", "random", "--coverage", 0.5))
    assert failed.code == BAD_INPUT
    assert "--coverage: expected --cache maskkv, found --cache random" in failed.error


def test_inspect_has_nothing_to_show_without_a_cache(tiny):
    failed = run("inspect", *tiny.args("--cache", "none"))
    assert failed.code == BAD_INPUT and "found none" in failed.error


def test_bench_cannot_time_more_steps_than_there_are_tokens():
    failed = run("bench", "--model", TINY, "--gen-length", 4, "--steps", 5)
    assert failed.code == BAD_INPUT and "steps: expected at most --gen-length 4" in failed.error


def limited_memory():
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))


@pytest.mark.parametrize("cache", ["none", "full"])
def test_an_answer_that_cannot_fit_into_memory(ids_file, cache):
    failed = run("generate", "--model", TINY, "--prompt-ids", ids_file([1]), "--cache", cache,
                 "--gen-length", 1 << 24, "--json", "--threads", 1, preexec_fn=limited_memory)
    assert failed.code == NO_RESOURCES
    assert "memory: expected at least" in failed.error and "found" in failed.error


def test_a_prompt_that_cannot_fit_into_memory(ids_file):
    ids = ids_file("[" + "1," * 2_000_000 + "1]")
    failed = run("generate", "--model", TINY, "--prompt-ids", ids, "--cache", "none", "--json",
                 "--gen-length", 2, "--threads", 1, preexec_fn=limited_memory)
    assert failed.code == NO_RESOURCES and "memory" in failed.error


def test_output_that_cannot_be_written(ids_file):
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [str(binary()), "generate", "--model", str(TINY), "--cache", "none", "--gen-length",
             "2", "--json", "--prompt-ids", str(ids_file([1]))],
            stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(b"maskkv: standard output: ") and done.stderr.count(b"\n") == 1
