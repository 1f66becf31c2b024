# SPDX-License-Identifier: Apache-2.0
"""Requests that fill in, through the real processes: the tokens and spans of `maskkv generate
--infill`, given text that stays, refreshes, reuse of an entry, and what is refused."""

import json
import re

import cli_runs
import maskkv
import pytest
import stack as stacks

RECORD = json.loads((cli_runs.TINY / "calibration.jsonl").read_text().splitlines()[0])
# In words of the embedded world, so that little of it is unknown to the tokenizer.
CANVAS = "[[3]] " + RECORD["document"][:30] + " [[5]]"
AROUND = RECORD["document"][:400] + "[[4]]" + RECORD["document"][400:430] + "[[6]]"
SUFFIX = RECORD["document"][430:900]
COMMON = {"budget": 8, "seed": 4}


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    with stacks.Stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


def generate(*flags, **fields):
    for name, value in {**COMMON, **fields}.items():
        flags += (f"--{name.replace('_', '-')}", value)
    done = cli_runs.run("generate", "--model", cli_runs.TINY, "--threads", 1, "--json", *flags)
    return cli_runs.validated("generate", done.json)


def committed(answer):
    return [(step.step, [(t.position, t.id) for t in step.committed]) for step in answer.steps]


@pytest.mark.parametrize("more", [{}, {"temperature": 0.7, "refresh_every": 3},
                                  {"rule": "threshold", "threshold": 0.5}])
def test_a_service_fills_in_as_generate_does(stack, tmp_path, more):
    (tmp_path / "document.txt").write_text(RECORD["document"])
    (tmp_path / "around.txt").write_text(AROUND + SUFFIX + "\n")
    before, _, canvas = AROUND.partition("[[4]]")
    asked = [
        (("--document", tmp_path / "document.txt", "-q", RECORD["question"],
          "--infill-text", CANVAS),
         {"document": RECORD["document"], "question": RECORD["question"], "canvas": CANVAS}),
        (("--infill", tmp_path / "around.txt"),
         {"text": before, "suffix": SUFFIX, "canvas": "[[4]]" + canvas}),
    ]
    for flags, arguments in asked:
        engine = generate(*flags, **more)
        with stack.client() as client:
            answer = client.generate(**arguments, **COMMON, **more)
        assert committed(answer) == [
            (step["step"], [(p, i) for p, i, _ in step["committed"]]) for step in engine["steps"]]
        assert answer.text == engine["text"] == "".join(step.text for step in answer.steps)
        assert list(answer.tokens) == engine["tokens"]
        assert answer.started.prompt_tokens == engine["prompt_tokens"]
        assert answer.samples[0].finish_reason == "length"
        assert [(s.position, list(s.tokens), s.text) for s in answer.spans] == [
            (s["position"], s["tokens"], s["text"]) for s in engine["spans"]]
        assert answer.samples[0].usage.refreshes == len(engine["refreshes"])
        filled = {s.position + i for s in answer.spans for i in range(len(s.tokens))}
        assert filled == {t.position for step in answer.steps for t in step.committed}
        masks = re.findall(r"\[\[([0-9]+)\]\]", arguments["canvas"])
        assert [len(s.tokens) for s in answer.spans] == [int(n) for n in masks]


def test_given_tokens_stay_and_an_entry_serves_both_sides_again(stack):
    with stack.client() as client:
        words = list(client.tokenize(text="Alice lives"))
        arguments = {"text": RECORD["document"], "suffix": words, "canvas": [2, words, 3], **COMMON}
        first = client.generate(**arguments, keep_entry_ms=60_000)
        assert list(first.tokens)[2:2 + len(words)] == words
        again = client.generate(**arguments, handle=first.handle, reuse="kept")
        assert committed(again) == committed(first)
        with pytest.raises(maskkv.Error) as raised:
            client.generate(**{**arguments, "suffix": words[:1]}, handle=first.handle, reuse="kept")
        assert raised.value.reason == "HANDLE_PROMPT_MISMATCH"


@pytest.mark.parametrize("spoiled,reason", [
    ({"canvas": "nothing to fill in"}, "BAD_CANVAS"),
    ({"canvas": [0]}, "BAD_CANVAS"),
    ({"canvas": [3], "gen_length": 4}, "BAD_SAMPLER"),
    ({"canvas": [3], "stop": ["x"]}, "BAD_STOP"),
    ({"suffix": ""}, "BAD_PROMPT"),
])
def test_what_cannot_be_filled_in_is_refused(stack, spoiled, reason):
    with stack.client() as client, pytest.raises(maskkv.Error) as raised:
        client.generate(text="Alice", **spoiled)
    assert raised.value.code.name == "INVALID_ARGUMENT" and raised.value.reason == reason


@pytest.mark.parametrize("text,code,said", [
    ("no masks", 3, "--infill: expected masks, [[8]] for eight of them, found none"),
    ("a [[0]]", 3, "--infill: expected [[N]] with N from 1 to"),
    ("a [[99999999999999999999]]", 3, "--infill: expected [[N]]"),
    ("a [[1000000]]", 3, "canvas: expected at most"),
])
def test_generate_refuses_texts_without_room_for_an_answer(text, code, said):
    done = cli_runs.run("generate", "--model", cli_runs.TINY, "--infill-text", text)
    assert done.code == code and said in done.error


def test_marks_that_are_none_are_text():
    report = generate("--infill-text", "[[x]] [[[2]] [[]] ]]")
    assert [len(span["tokens"]) for span in report["spans"]] == [2]
    assert report["tokens"] == report["spans"][0]["tokens"]
