# SPDX-License-Identifier: Apache-2.0
"""One request's id through the logs of all processes that work on it, and its text through none."""

import json
import urllib.request

import maskkv
import pytest
import stack as stacks

SECRET = "Quetzalcoatlus"
TEXT = {"document": f"{SECRET} lives in Lyon.", "question": f"Where does {SECRET} live?"}
SHORT = {"gen_length": 8, "block_length": 8, "steps": 8}


def test_a_request_is_found_by_its_id_in_every_log_and_its_text_in_none(tmp_path):
    with stacks.Stack(tmp_path) as stack:
        with stack.client() as client:
            client.generate(**TEXT, **SHORT, budget=8, request_id="find-me")
            with pytest.raises(maskkv.Error) as refused:
                client.generate(**TEXT, **SHORT | {"block_length": 3}, budget=8)
            assert SECRET not in str(refused.value)
        pages = [urllib.request.urlopen(f"http://{process.metrics}/metrics", timeout=30).read()
                 for process in stack.processes.values()]
    assert all(SECRET.encode() not in page for page in pages) and len(pages) == 4
    events = {}
    for name in stacks.NAMES:
        text = (tmp_path / f"{name}.log").read_text()
        assert SECRET not in text, name
        lines = [json.loads(line) for line in text.splitlines()]
        events[name] = [line["event"] for line in lines if line.get("request_id") == "find-me"]
    assert events["decode"] == ["generate"]
    assert events["prefill"] == ["prefill"]
    assert events["cached"] == ["reserve", "seal", "lease"]
