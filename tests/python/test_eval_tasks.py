# SPDX-License-Identifier: Apache-2.0
"""Tasks: what they ask at a length, how they score, what they say of files that are wrong."""

import json
import re

import pytest

from maskkv_eval import sandbox, tasks
from maskkv_eval.tasks import base, haystacks, humaneval, longbench, ruler


def count(prompt):
    """A tokenizer of words and full stops, and five tokens of a chat's frame."""
    text = " ".join([prompt.get("document", ""), prompt.get("question", ""),
                     *(text for _, text in prompt.get("messages", ()))])
    return 5 + len(re.findall(r"\w+|[^\w\s]", text))


def options(**more):
    return base.Options(**{"questions": 3, "length": 300, "seed": 1, "count": count, **more})


def task(name, **more):
    made, = tasks.make(name, options(**more))
    return made


@pytest.mark.parametrize("haystack", haystacks.NAMES)
@pytest.mark.parametrize("kind", ruler.KINDS)
def test_ruler_fills_the_length_and_hides_every_needle(kind, haystack):
    for length in (150, 301, 2000):
        made = task(f"ruler:{kind}", length=length, haystack=haystack)
        for index in range(made.size):
            item = made.item(index)
            assert length - 20 < count(item.prompt) <= length  # no sentence has 20 tokens
            assert item == made.item(index)
            assert made.score(item, "It is " + ", ".join(item.references)) == 1.0
            assert made.score(item, "nothing") == 0.0
            assert item.answer_tokens % 8 == 0
            assert item.answer_tokens >= count({"document": ", ".join(item.references)}) - 5
            if kind != "counting":
                assert all(item.prompt["document"].count(r) >= 1 for r in item.references)


def test_ruler_references_follow_from_the_text():
    for index in range(20):
        made = {kind: task(f"ruler:{kind}", questions=20, haystack="keys").item(index)
                for kind in ruler.KINDS}
        for kind in ("single", "multi_key"):
            item = made[kind]
            thing = re.search("code of the (.*?)\\?", item.prompt["question"])[1]
            assert re.findall(rf"code of the {thing} is (\d+)", item.prompt["document"]) == list(
                item.references)
        item = made["multi_value"]
        thing = re.search("codes of the (.*?)\\?", item.prompt["question"])[1]
        assert re.findall(rf"codes of the {thing} is (\d+)", item.prompt["document"]) == list(
            item.references)
        item = made["multi_query"]
        things = re.findall(r"the (\w+ \w+ \d+)", item.prompt["question"])
        assert [re.findall(rf"code of the {thing} is (\d+)", item.prompt["document"])
                for thing in things] == [[r] for r in item.references] and len(things) == 4
        item = made["two_hop"]
        thing = re.search("keeper of the (.*?)\\?", item.prompt["question"])[1]
        keeper, = re.findall(rf"keeper of the {thing} is (\w+)", item.prompt["document"])
        assert re.findall(rf"code of {keeper} is (\d+)", item.prompt["document"]) == list(
            item.references)
        item = made["counting"]
        assert str(item.prompt["document"].count("horn was blown")) == item.references[0]


def test_ruler_variables_can_be_followed_in_one_pass():
    for index in range(20):
        item = task("ruler:variables", questions=20).item(index)
        wanted = re.search(r"the value (\d+)\?", item.prompt["question"])[1]
        values = {}
        for name, number, source in re.findall(r"Let (\w+) be (?:(\d+)|the value of (\w+))\.",
                                               item.prompt["document"]):
            values[name] = number or values[source]
        assert len(values) == 10
        assert {name for name, value in values.items() if value == wanted} == set(item.references)


def test_ruler_scores_the_share_that_was_found():
    made = task("ruler:multi_query")
    item = made.item(0)
    assert made.score(item, " ".join(item.references[:3])) == 0.75
    assert (made.exact, task("ruler:single").exact) == (False, True)


def test_ruler_in_a_file_of_the_users(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("It was late.  Who\nwas there? Nobody said a word! The end.")
    document = task("ruler:single", haystack=str(path)).item(0).prompt["document"]
    assert "Who was there? Nobody said a word! The end. It was late. Who" in document
    path.write_text(" \n")
    with pytest.raises(SystemExit, match="book.txt: expected sentences, found none"):
        task("ruler:single", haystack=str(path))
    with pytest.raises(SystemExit, match="--haystack: expected prose, repeat, keys or a text file"):
        task("ruler:single", haystack="hay")


def test_lengths_that_are_too_short_are_named():
    with pytest.raises(SystemExit, match=r"--length: expected at least \d+ tokens for ruler:mul"):
        task("ruler:multi_query", length=30).item(0)
    with pytest.raises(SystemExit, match="--tasks world: length: 20 tokens cannot hold facts"):
        task("world", length=20)


@pytest.mark.parametrize("name", ["world", "ruler:single", "ruler:variables"])
def test_more_questions_keep_those_of_fewer_and_seeds_differ(name):
    few, many, other = task(name, questions=2), task(name, questions=4), task(name, seed=2)
    assert [few.item(i) for i in range(2)] == [many.item(i) for i in range(2)]
    assert few.source == many.source != other.source
    assert few.item(0) != other.item(0)


def test_the_world_wants_the_whole_answer():
    made = task("world")
    item = made.item(1)
    assert item.group == "world/two_hop" and made.item(0).group == "world/single"
    assert made.score(item, f" {item.references[0]} ") == 1.0
    assert made.score(item, f"{item.references[0]} it is") == 0.0


@pytest.mark.parametrize("size, most", [(0, 50), (40, 50), (200, 50), (5000, 60), (5000, 4999)])
def test_the_middle_is_left_out(size, most):
    text = " ".join(f"w{i}" for i in range(size))
    cut = base.truncate_middle(text, lambda t: 5 + len(t.split()), most)
    found = 5 + len(cut.split())
    if size + 5 <= most:
        assert cut == text
        return
    assert most - max(2, most // 50) <= found <= most
    middle = len(cut) - len(cut) // 2
    assert text.startswith(cut[:middle]) and text.endswith(cut[middle:])


def test_a_question_that_fills_the_length_alone_is_named():
    with pytest.raises(SystemExit, match="--length: expected at least 60 tokens"):
        base.truncate_middle("a b", lambda t: 60 + len(t.split()), 50)


def record(dataset="hotpotqa", **more):
    return {"input": "Who {braces}?", "context": "one two " * 400, "answers": ["Ann", "Ann Bell"],
            "all_classes": None, "length": 800, "dataset": dataset, "language": "en", "_id": "x",
            **more}


def write(path, *records):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in records))


def test_longbench_asks_in_the_length_and_takes_the_best_reference(tmp_path):
    write(tmp_path / "longbench/hotpotqa.jsonl", record(), record(input="Where?"))
    write(tmp_path / "longbench/trec.jsonl", record("trec", all_classes=["date", "city"],
                                                    answers=["city"]))
    hotpot, trec = tasks.make("longbench", options(data=tmp_path))
    assert (hotpot.name, hotpot.size, trec.name, trec.exact) == (
        "longbench:hotpotqa", 2, "longbench:trec", False)
    item = next(hotpot.item(i) for i in range(2) if "{" in hotpot.item(i).prompt["question"])
    assert item.prompt["question"].endswith("Question: Who {braces}?")
    assert 290 <= count(item.prompt) <= 300
    assert hotpot.score(item, "ann bell") == 1.0
    assert trec.score(trec.item(0), "\ncity\ndate") == 1.0  # the first line alone counts
    assert trec.score(trec.item(0), "city date") == 0.5
    assert task("longbench:trec", data=tmp_path).source == trec.source


def test_every_longbench_dataset_scores_its_own_reference(tmp_path):
    own = {"passage_retrieval_en": "Paragraph 3", "passage_retrieval_zh": "段落3",
           "passage_count": "3", "trec": "city", "lsht": "city"}
    assert len(longbench.DATASETS) == 21
    for name in longbench.DATASETS:
        answer = own.get(name, "Ann Bell lives in 北京 now")
        write(tmp_path / f"longbench/{name}.jsonl",
              record(f"{name}_e", answers=["zebra", answer][name in own:], all_classes=["city"]))
        made = task(f"longbench:{name}", data=tmp_path)
        assert made.score(made.item(0), answer) == pytest.approx(1.0, abs=1e-6)
        assert made.score(made.item(0), "") == 0.0
        assert made.item(0).answer_tokens == longbench.DATASETS[name].answer_tokens


@pytest.mark.parametrize("name, bad, complaint", [
    ("hotpotqa", record("novel"), ":2: field dataset: expected one of narrat.* found 'novel'"),
    ("hotpotqa", record("trec"), ":2: field dataset: expected the same in every .* found 'trec'"),
    ("hotpotqa", record(answers=[]), ":2: field answers: expected at least one, found none"),
    ("hotpotqa", record(answers="Ann"), ":2: field answers: expected list, found str"),
    ("trec", record("trec"), ":2: field all_classes: expected a list of strings, found None"),
])
def test_longbench_names_what_is_wrong(tmp_path, name, bad, complaint):
    write(tmp_path / f"longbench/{name}.jsonl", record(name, all_classes=["a"]), bad)
    with pytest.raises(SystemExit, match=complaint):
        task(f"longbench:{name}", data=tmp_path)


def test_gsm8k_compares_the_final_number(tmp_path):
    write(tmp_path / "gsm8k.jsonl", {"question": "How many?", "answer": "5 + 6 = 11\n#### 1,100"})
    made = task("gsm8k", data=tmp_path)
    item = made.item(0)
    assert item.prompt["messages"][0][1].endswith("How many?")
    scores = [made.score(item, text) for text in ("Answer: 1100.00", "1100 or 7", "none")]
    assert scores == [1, 0, 0]
    write(tmp_path / "gsm8k.jsonl", {"question": "q", "answer": "#### none"})
    with pytest.raises(SystemExit, match=r"gsm8k.jsonl:1: field answer: expected a number after"):
        task("gsm8k", data=tmp_path)


HUMAN = {"task_id": "HumanEval/0", "entry_point": "double",
         "prompt": "from math import floor\n\n\ndef half(x):\n    return x // 2\n\n\n"
                   "def double(x):\n    \"\"\"Twice x.\"\"\"\n",
         "test": "def check(candidate):\n    assert candidate(3) == 6\n    assert half(4) == 2\n"}


@pytest.mark.parametrize("answer, passed", [
    ("```python\ndef double(x):\n    return 2 * x\n```\nThat is all.", True),
    ("def double(x):\n    return floor(2 * x)", True),
    ("Here it is:\n```\n    return x + x\n```", True),
    ("return x + x", True),
    ("    y = x\n    return y + x\n", True),
    ("```python\ndef double(x):\n    return 3 * x\n```", False),
    ("", False),
    ("def double(x): raise SystemExit(0)", False),
    ("import os\nos._exit(0)", False),
])
def test_humaneval_runs_the_tests_on_what_was_answered(answer, passed):
    assert sandbox.run(humaneval.program(HUMAN, answer), strict=False).passed == passed


def test_humaneval_items_and_scores(tmp_path):
    write(tmp_path / "humaneval.jsonl", HUMAN)
    made = task("humaneval", data=tmp_path, strict_sandbox=False)
    item = made.item(0)
    assert item.id == "HumanEval/0" and HUMAN["prompt"] in item.prompt["messages"][0][1]
    assert [made.score(item, text) for text in ("return 2 * x", "return 1")] == [1.0, 0.0]
    write(tmp_path / "humaneval.jsonl", {k: v for k, v in HUMAN.items() if k != "test"})
    with pytest.raises(SystemExit, match=r"humaneval.jsonl:1: field test: expected str, found no"):
        task("humaneval", data=tmp_path, strict_sandbox=False)


def test_humaneval_does_not_run_programs_where_the_sandbox_is_not_permitted(tmp_path, monkeypatch):
    write(tmp_path / "humaneval.jsonl", HUMAN)
    monkeypatch.setattr(sandbox, "why_not_strict", lambda: "unshare: no")
    with pytest.raises(SystemExit, match=r"does not permit the sandbox \(unshare: no\); --weak"):
        task("humaneval", data=tmp_path)


@pytest.mark.parametrize("names, more, complaint", [
    ("word", {}, "--tasks: expected some of world, ruler, .*, found 'word'"),
    ("ruler:hard", {}, "found 'ruler:hard'"),
    ("world,world", {}, "expected each task once, found world, world"),
    ("gsm8k", {}, "--data: expected a folder with gsm8k.jsonl, found none"),
    ("longbench", {}, "--data: expected a folder with longbench/, found none"),
])
def test_names_that_are_wrong_are_refused(names, more, complaint):
    with pytest.raises(SystemExit, match=complaint):
        tasks.make(names, options(**more))


def test_folders_without_the_files_are_named(tmp_path):
    with pytest.raises(SystemExit, match="expected a file humaneval.jsonl, found none"):
        task("humaneval", data=tmp_path, strict_sandbox=False)
    with pytest.raises(SystemExit, match="longbench: expected files DATASET.jsonl, found none"):
        task("longbench", data=tmp_path)
    with pytest.raises(SystemExit, match="trec.jsonl: No such file"):
        task("longbench:trec", data=tmp_path)
