# SPDX-License-Identifier: Apache-2.0
"""maskkv-eval against a server of our own in this process: what it asks, notices and writes."""

import json
import re
import threading

import pytest

from eval_server import Server
from maskkv.v1 import decode_pb2
from maskkv_eval import cli, journal, serving


def look_up(document, question):
    """Answers the world's single questions about cities and instruments; else nothing."""
    asked = re.match(r"(?:Where|What) does (\w+ \w+) (live|play|own|grow)\?", question)
    if not asked:
        return "nothing"
    verbs = {"live": "lives in", "play": "plays the", "own": "owns a", "grow": "grows some"}
    found = re.search(rf"{asked[1]} {verbs[asked[2]]} (\w+)\.", document)
    return f" {found[1]}" if found else "nothing"


@pytest.fixture
def server():
    with Server(look_up) as server:
        yield server


def run(server, out, *more, policies="snapkv,none", budgets="4,8", tasks="world", questions=6):
    cli.main(["--server", server.address, "--tasks", tasks, "--policies", policies, "--budgets",
              budgets, "--questions", str(questions), "--length", "200", "--out", str(out), *more])
    return json.loads((out / "report.json").read_text())


def lines(out):
    return [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]


def test_every_question_is_asked_under_every_policy_and_budget(server, tmp_path):
    report = run(server, tmp_path)
    assert [(c["task"], c["policy"], c["budget"], c["questions"]) for c in report["cells"]] == [
        (f"world/{kind}", policy, budget, 3) for kind in ("single", "two_hop")
        for policy, budget in (("snapkv", 4), ("snapkv", 8), ("none", None))]
    asked = {(r.keep.policy, r.keep.budget, r.cache) for r in server.service.requests}
    assert asked == {("snapkv", 4, 0), ("snapkv", 8, 0), ("", 0, decode_pb2.CACHE_NONE)}
    assert len(server.service.requests) == 18
    # The look-up answers single questions about things, no two-hop ones.
    assert all(sum(c["right"]) == 0 for c in report["cells"] if c["task"] == "world/two_hop")
    assert all(c["correct"] == sum(c["right"]) for c in report["cells"])
    singles = [r for r in lines(tmp_path)[1:] if r["group"] == "world/single"]
    assert {r["score"] for r in singles if r["text"] != "nothing"} == {1.0}
    assert report["model"]["model_name"] == "stand-in"
    assert (tmp_path / "report.png").stat().st_size > 0
    assert "| snapkv |" in (tmp_path / "report.md").read_text()


def test_answers_are_decoded_as_asked(server, tmp_path):
    run(server, tmp_path, "--block-length", "6", "--tokens-per-step", "4", "--seed", "5",
        policies="random", budgets="4", questions=1)
    request, = server.service.requests
    sampler = request.sampler  # 8 masks in blocks of 6: 12; 2 steps a block
    assert (sampler.gen_length, sampler.block_length, sampler.steps, sampler.seed) == (12, 6, 4, 5)
    assert request.keep.random_seed == 5


def test_more_of_everything_only_adds_answers(server, tmp_path):
    run(server, tmp_path, questions=2, budgets="4", policies="snapkv")
    run(server, tmp_path, questions=3, budgets="4,8", policies="snapkv,full",
        tasks="world,ruler:single")
    kept = [(r["task"], r["index"], r["policy"], r["budget"]) for r in lines(tmp_path)[1:]]
    assert len(kept) == len(set(kept)) == 2 * 3 * 3 == len(server.service.requests)
    before = len(server.service.requests)
    report = run(server, tmp_path, questions=2, budgets="4", policies="snapkv")
    assert len(server.service.requests) == before
    assert [c["questions"] for c in report["cells"]] == [1, 1]


def test_requests_are_made_at_once(server, tmp_path):
    server.service.together = threading.Barrier(3)
    run(server, tmp_path, "--concurrency", "3", policies="snapkv", budgets="4")
    assert server.service.most_running == 3


def test_a_server_that_is_full_is_asked_again(server, tmp_path):
    server.service.refuse = 5
    run(server, tmp_path, policies="snapkv", budgets="4", questions=2)
    assert len(server.service.requests) == 5 + 2 and len(lines(tmp_path)) == 3


def test_a_failed_question_is_named_and_nothing_is_lost(server, tmp_path):
    server.service.fail_after = 4
    with pytest.raises(SystemExit, match=r"maskkv-eval: test-1-4 under snapkv, B = 4: DATA_LOSS: "
                                         r"scores: not finite"):
        run(server, tmp_path, "--concurrency", "1", policies="snapkv", budgets="4")
    assert [record["index"] for record in lines(tmp_path)[1:]] == [0, 1, 2, 3]
    server.service.fail_after = None
    report = run(server, tmp_path, policies="snapkv", budgets="4")
    assert sum(c["questions"] for c in report["cells"]) == 6
    assert [record["index"] for record in lines(tmp_path)[1:5]] == [0, 1, 2, 3]


def test_a_server_that_ignores_policies_is_noticed(server, tmp_path):
    server.service.knows_names = False
    with pytest.raises(SystemExit, match="it does not know policies by name and would answer ev"):
        run(server, tmp_path)
    assert server.service.requests == []
    run(server, tmp_path, policies="plan,none", questions=1)  # those need no names


def test_a_name_that_the_server_refuses_is_said_before_anything_is_asked(server, tmp_path):
    with pytest.raises(SystemExit, match="policy masks/pyramid/best: INVALID_ARGUMENT: keep.policy"):
        run(server, tmp_path, policies="snapkv,masks/pyramid/best")
    assert server.service.requests == []


@pytest.mark.parametrize("keeps, complaint", [
    (([9, 7], [5, 4, 3, 4]), "expected the same number of pairs in every layer, found [9, 7]"),
    (([8, 8], [5, 3, 4, 4]), "expected the same number of pairs in every head, found [5, 3]"),
    (([8, 10], [4, 4, 5, 5]), "expected 16 pairs, found 18"),
])
def test_an_answer_that_does_not_fit_its_policy_is_noticed(server, tmp_path, keeps, complaint):
    server.service.keeps = keeps
    with pytest.raises(SystemExit) as stopped:
        run(server, tmp_path, policies="snapkv", budgets="4")
    assert "under snapkv, B = 4: the answer does not fit the policy: " in str(stopped.value)
    assert complaint in str(stopped.value)
    assert len(lines(tmp_path)) == 1


def test_a_folder_of_other_answers_is_refused(server, tmp_path):
    run(server, tmp_path, policies="none")
    with pytest.raises(SystemExit, match=r"answers.jsonl:1: expected answers of .*'block': 4"):
        run(server, tmp_path, "--block-length", "4", policies="none")
    with pytest.raises(SystemExit, match=r"answers.jsonl:2: expected questions .* of task world"):
        run(server, tmp_path, "--lookalikes", "0.5", policies="none")
    with open(tmp_path / "answers.jsonl", "a") as file:
        file.write('{"task": "world", "source": "s", "index": 1}\n')
    with pytest.raises(SystemExit, match=r"answers.jsonl:8: field policy: expected one, found no"):
        run(server, tmp_path, policies="none")


def test_an_error_while_a_question_is_made_ends_the_run(server, tmp_path):
    with pytest.raises(SystemExit, match=r"maskkv-eval: --length: expected at least \d+ tokens for "
                                         "ruler:multi_query, found 20"):
        cli.main(["--server", server.address, "--tasks", "ruler:multi_query", "--policies", "none",
                  "--length", "20", "--out", str(tmp_path)])


def test_a_checkpoint_without_a_tokenizer_is_refused(server, tmp_path):
    server.service.has_tokenizer = False
    with pytest.raises(SystemExit, match="expected a checkpoint with a tokenizer, found none"):
        run(server, tmp_path)


def test_an_address_without_a_server_is_named(tmp_path):
    with pytest.raises(SystemExit, match="maskkv-eval: 127.0.0.1:1: UNAVAILABLE"):
        cli.main(["--server", "127.0.0.1:1", "--tasks", "world", "--policies", "none", "--out",
                  str(tmp_path)])


@pytest.mark.parametrize("flags, complaint", [
    (["--policies", "snapkw"], "--policies: expected none, plan, .* found 'snapkw'"),
    (["--policies", "snapkv"], "--budgets: expected at least one for the policy snapkv, found"),
    (["--policies", "none", "--bin", "/nonexistent", "--model", "m"], "--bin: /nonexistent: "),
])
def test_arguments_that_are_wrong_are_named(tmp_path, flags, complaint):
    where = [] if "--model" in flags else ["--server", "127.0.0.1:1"]
    with pytest.raises(SystemExit, match=complaint):
        cli.main([*where, "--tasks", "world", "--out", str(tmp_path / "o"), *flags])


@pytest.mark.parametrize("flag, value", [("--questions", "0"), ("--budgets", "4,x"),
                                         ("--concurrency", "-1")])
def test_numbers_that_are_wrong_are_named(tmp_path, capsys, flag, value):
    with pytest.raises(SystemExit):
        cli.main(["--server", "a:1", "--tasks", "world", "--policies", "none", "--out",
                  str(tmp_path), flag, value])
    assert f"argument {flag}: expected a whole number from 1, found " in capsys.readouterr().err


def test_the_program_is_found_by_name_and_in_folders(tmp_path, monkeypatch):
    program = tmp_path / "maskkv"
    program.write_text("")
    assert serving.find_binary(program) == serving.find_binary(str(tmp_path)) == program.resolve()
    monkeypatch.setenv("MASKKV_BIN", str(tmp_path))
    assert serving.find_binary() == program.resolve()
    monkeypatch.setenv("MASKKV_BIN", str(tmp_path / "nothing"))
    with pytest.raises(SystemExit, match="maskkv: .*nothing: expected the program, found no such"):
        serving.find_binary()


def test_two_runs_do_not_share_a_folder(server, tmp_path):
    with journal.Journal(tmp_path / "answers.jsonl"):
        with pytest.raises(SystemExit, match="expected no other run to write it, found one"):
            run(server, tmp_path)
