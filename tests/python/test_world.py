# SPDX-License-Identifier: Apache-2.0
"""The tiny world: disjoint splits, determinism, exact length, unambiguous answers, chance."""

import itertools
import json
import pathlib
import random
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "python"))

from maskkv_tiny import words, world  # noqa: E402

FACT = {r.name: r.statement for r in (*world.ATTRIBUTES, *world.RELATIONS)}
RECORDS = list(world.records("test", 40, 1000, 5))


def facts_of(document):
    """{(name of the fact, person): value}, read back from the text of a document."""
    facts = {}
    for name, statement in FACT.items():
        for person, value in re.findall(rf"(\w+ \w+) {statement} ([\w ]+)\.", document):
            assert (name, person) not in facts, f"{person} has two facts of kind {name}"
            facts[name, person] = value
    return facts


def reasoned_answer(record):
    """The answer as a reader of the document finds it, without the generator's own tables."""
    facts = facts_of(record["document"])
    asks = {r.name: r.asks for r in (*world.ATTRIBUTES, *world.RELATIONS)}
    for name, (before, after) in asks.items():
        match = re.fullmatch(rf"{before} (.+) {re.escape(after)}", record["question"])
        if not match:
            continue
        subject = match.group(1)
        for relation in world.RELATIONS:
            prefix = f"the {relation.role} of "
            if subject.startswith(prefix):
                subject = facts[relation.name, subject.removeprefix(prefix)]
        return facts[name, subject]
    raise AssertionError(f"no form fits the question {record['question']!r}")


def test_every_word_is_in_one_list_once():
    lists = [getattr(words, name) for name in dir(words) if name.isupper()]
    everything = list(itertools.chain.from_iterable(lists))
    assert len(everything) == len(set(everything))


def test_splits_share_no_person():
    for one, other in itertools.combinations(world.SPLITS, 2):
        assert not set(world.PEOPLE[one]) & set(world.PEOPLE[other])
    assert sum(map(len, world.PEOPLE.values())) == len(words.GIVEN) * len(words.SURNAME)


def test_every_name_part_of_a_test_person_occurs_in_training():
    train = {part for person in world.PEOPLE["train"] for part in person.split()}
    assert {part for person in world.PEOPLE["test"] for part in person.split()} <= train


@pytest.mark.parametrize("split", world.SPLITS)
def test_a_document_speaks_of_people_of_its_split_only(split):
    document = world.make_document(random.Random(3), split, 1000, 1).text
    people = {person for _, person in facts_of(document)}
    assert people <= set(world.PEOPLE[split])


def test_people_of_a_document_share_a_name_only_when_lookalikes_are_asked_for():
    for seed in range(50):
        names = " ".join(world.draw_people(random.Random(seed), "test", 12)).split()
        assert len(set(names)) == 24
        names = " ".join(world.draw_people(random.Random(seed), "test", 12, 0.6)).split()
        assert len(set(names)) < 24


def test_the_same_seed_gives_the_same_records_and_another_seed_others():
    assert RECORDS == list(world.records("test", 40, 1000, 5))
    others = world.records("test", 40, 1000, 6)
    assert all(a["document"] != b["document"] for a, b in zip(RECORDS, others))


@pytest.mark.parametrize("length", [128, 131, 200, 256, 300, 333, 512, 1000, 1001, 4000])
def test_a_document_has_exactly_the_length_asked_for(length):
    for seed in range(20):
        document = world.make_document(random.Random(seed), "train", length, 4)
        assert world.count_tokens(document.text) == length


def test_too_short_a_document_is_refused():
    with pytest.raises(ValueError, match="length: 40 tokens"):
        world.make_document(random.Random(0), "train", 40, 1)


def test_the_answer_is_what_a_reader_concludes_and_no_other():
    for record in RECORDS:
        assert reasoned_answer(record) == record["answer"]


def test_the_answer_is_one_of_the_candidates_and_all_of_them_stand_in_the_document():
    for record in RECORDS:
        assert record["answer"] in record["candidates"]
        assert len(set(record["candidates"])) == len(record["candidates"])
        assert all(f" {c}." in record["document"] for c in record["candidates"])


def test_chance_stays_below_a_fifth_at_1000_tokens():
    assert max(1 / len(record["candidates"]) for record in RECORDS) < 0.2


def test_both_kinds_of_question_come_up_equally():
    kinds = [record["kind"] for record in RECORDS]
    assert kinds.count("single") == kinds.count("two_hop") == len(kinds) // 2


def test_a_two_hop_answer_is_not_the_subjects_own_value():
    for record in RECORDS:
        if record["kind"] == "two_hop":
            person = re.search(r"of (\w+ \w+) ", record["question"]).group(1)
            own = facts_of(record["document"])[record["relation"].split("-")[1], person]
            assert own != record["answer"]


def test_questions_that_lookalikes_make_harder_have_a_kind_of_their_own():
    kinds = set()
    for record in world.records("test", 60, 1000, 5, lookalikes=0.3):
        facts = facts_of(record["document"])
        people = sorted({person for _, person in facts})
        subject = next(p for p in people if f"{p} " in record["question"])
        concerned = {subject}
        if "two_hop" in record["kind"]:
            concerned.add(facts[record["relation"].split("-")[0], subject])
        namesakes = [p for c in concerned for p in people
                     if p != c and (p.split()[0] == c.split()[0] or p.split()[1] == c.split()[1])]
        assert record["kind"].endswith("_lookalike") == bool(namesakes)
        kinds.add(record["kind"])
    assert kinds == {"single", "single_lookalike", "two_hop", "two_hop_lookalike"}


def test_a_document_speaks_of_as_many_people_as_asked_for():
    for record in world.records("test", 3, 2000, 5, people=24):
        assert len({person for _, person in facts_of(record["document"])}) == 24
        assert len(record["candidates"]) == 24


def test_the_command_writes_json_lines(tmp_path):
    out = tmp_path / "test.jsonl"
    command = [sys.executable, "-m", "maskkv_tiny.world", "--split", "test", "--questions", "3",
               "--length", "300", "--seed", "2", "--out", str(out)]
    subprocess.run(command, cwd=ROOT / "python", check=True)
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 3
    assert {"id", "kind", "document", "question", "answer", "candidates"} <= set(lines[0])
