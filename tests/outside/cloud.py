"""A cloud that a suite asks over HTTP, and how a suite says what it found. Reads the environment that every suite has."""

import json
import os
import time
import urllib.request

ROOT = os.environ["SUBLET_API_BASE"].removesuffix("/v1")
PROJECT, ADMIN, OPERATOR = (os.environ[f"SUBLET_{plane}_KEY"] for plane in ("PROJECT", "ADMIN", "OPERATOR"))
MODEL = os.environ["SUBLET_MODEL"]
WAIT_MAX = 30


def ask(method, path, key=None, body=None):
    headers = {"content-type": "application/json"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(ROOT + path, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read(), answer.headers


def see(path, key):
    return json.loads(ask("GET", path, key)[0])


def chat(words):
    body = {"model": MODEL, "max_tokens": words, "messages": [{"role": "user", "content": "Count."}]}
    return ask("POST", "/v1/chat/completions", PROJECT, body)[1]["x-request-id"]


def eventually(what, probe):
    end = time.monotonic() + WAIT_MAX
    while not (found := probe()):
        if time.monotonic() > end:
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(0.05)
    return found


def judge(checks):
    """Runs every check and prints a line for each. The exit status."""
    failed = 0
    for name, run in checks:
        try:
            run()
        except Exception as problem:  # Whatever a judge says, the next one is heard.
            failed += 1
            print(f"FAIL {name}: {type(problem).__name__}: {problem}")
        else:
            print(f"ok {name}")
    return 1 if failed else 0
