"""Autobahn's WebSocket cases against the echo route, which is built on the trackers' accept path and frame loop.

`results.json` holds what each case found. A difference fails, for better or worse: run with FOOTFALL_UPDATE_RESULTS=1
and look at the diff. Compression is not offered, so its cases (12 and 13) are not run.
"""

import asyncio
import json
import os
import pathlib

from kosoku import FailureError, run_fuzzingclient

RESULTS = pathlib.Path(__file__).with_name("results.json")
COMPRESSION = ["12.*", "13.*"]
# The largest cases echo 16 MiB in small frames; side by side they fit into the suite's time.
AT_ONCE = 4
CONFORMING = {"OK", "NON-STRICT", "INFORMATIONAL"}


def run_cases(url):
    try:
        return asyncio.run(run_fuzzingclient(url, None, COMPRESSION, concurrency=AT_ONCE))
    except FailureError as failure:
        return failure.results


def test_every_case_behaves_as_recorded_and_none_fails(start_node):
    node = start_node("echo = true")
    results = run_cases(f"ws://127.0.0.1:{node.port}/ws-echo")
    found = {
        result.case_id: {"behavior": result.behavior.value, "close": result.behavior_close.value} for result in results
    }
    failed = {
        result.case_id: f"{result.result} {result.result_close}"
        for result in results
        if result.behavior.value not in CONFORMING or result.behavior_close.value not in CONFORMING
    }
    if os.environ.get("FOOTFALL_UPDATE_RESULTS") == "1":
        RESULTS.write_text("{\n" + ",\n".join(f"  {json.dumps(case)}: {json.dumps(found[case])}" for case in found) + "\n}\n")
    assert failed == {}
    assert found == json.loads(RESULTS.read_text())
