"""What the suites of Python clients share: a list of checks, how they are run and reported, the record of
a request as the cloud keeps it, and the scripted server behind a model of the suite's own.
"""

import asyncio
import json
import os
import pathlib
import sys
import threading
import time
import urllib.error
import urllib.request
from decimal import Decimal

BASE = os.environ["SUBLET_API_BASE"]
ROOT = BASE.removesuffix("/v1")
KEY = os.environ["SUBLET_PROJECT_KEY"]
MODEL = os.environ["SUBLET_MODEL"]

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def same(got, want, what):
    assert got == want, f"{what}: got {got!r}, want {want!r}"


def raises(kind, call, *words):
    """Expects an error of this class whose text has these words."""
    try:
        got = call()
    except kind as error:
        for word in words:
            assert word in str(error), f"{word!r} is not in {error}"
        return error
    raise AssertionError(f"no {kind.__name__}, but {got!r}")


def settled(look, missing, request):
    """The usage of a request as soon as it is settled; until then `look` raises `missing`."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return look()
        except missing as error:
            assert time.monotonic() < deadline, f"{request} is not settled after 20 s: {error}"
            time.sleep(0.1)


def opened(url, body=None, key=KEY):
    """The answer at an address, not read yet."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    return urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60)


def fetch(url, body=None, key=KEY):
    """The JSON at an address; the project's key opens those of the cloud."""
    with opened(url, body, key) as answer:
        return json.load(answer)


def narrow_key():
    """A new key of the project that may have one request in flight."""
    limited = {"name": "one at a time", "rate_limits": {"concurrent_requests": 1}}
    project = cloud("/account")["project"]
    return fetch(f"{BASE}/organization/projects/{project}/api_keys", limited, os.environ["SUBLET_ADMIN_KEY"])["value"]


class NotYet(Exception):
    """The cloud does not have it yet."""


def cloud(path):
    try:
        return fetch(BASE + path)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 404:
                raise NotYet(path) from None
            raise


def record_of(answer):
    """The cloud's record of a request by the id of its answer: the same id, after another prefix in some APIs."""
    request = "req_" + answer.split("_", 1)[1]
    return settled(lambda: cloud(f"/requests/{request}"), NotYet, request)


def cost_of(model, tier, **tokens):
    """What tokens of a model cost by the price list at a tier."""
    rates = {
        price["meter"]: Decimal(price["amount"]) / price["per"]
        for price in cloud("/prices")["prices"]
        if price["subject"] == {"kind": "model", "name": model} and price.get("service_tier", "default") == tier
    }
    return sum(rates[meter] * count for meter, count in tokens.items())


def charged(answer, prompt, output):
    """The record has the counts that the client was shown, and was charged by the price list; answers it."""
    record = record_of(answer)
    used = record["usage"]
    same((used["input_tokens"] + used["cached_input_tokens"], used["output_tokens"]), (prompt, output), "tokens in the record")
    assert prompt > 0, record
    same(Decimal(record["cost"]["amount"]), cost_of(record["model"], record["service_tier"], **used), "the cost in the record")
    return record


def used(model):
    """Input and output tokens of a model that the project was charged so far."""
    lines = [line for line in cloud("/usage")["lines"] if line["subject"] == {"kind": "model", "name": model}]
    total = lambda *meters: sum(line["quantity"] for line in lines if line["meter"] in meters)
    return total("input_tokens", "cached_input_tokens"), total("output_tokens")


async def cancelled(texts):
    """Reads an asynchronous iterator of texts in a task of its own, which is cancelled as it waits after the last."""
    seen = asyncio.Event()

    async def read():
        async for text in texts:
            if text and "three" in text:
                seen.set()

    task = asyncio.create_task(read())
    saw = asyncio.create_task(seen.wait())
    await asyncio.wait([task, saw], return_when=asyncio.FIRST_COMPLETED, timeout=60)
    assert seen.is_set() and not task.done(), f"the stream did not wait: {task}"
    task.cancel()
    await asyncio.wait([task])


class Upstream:
    """The scripted server (`upstream.py`) behind the model that this suite has for itself."""

    def __init__(self, room=pathlib.Path(sys.argv[0]).stem, model=None):
        self.address = f"{os.environ['SUBLET_UPSTREAM']}/{room}"
        self.model = model or f"scripted/{room}"
        # Tokens of streams that were left.
        self.left = [0, 0]

    def script(self, *replies):
        """What it will answer, in order; forgets what it was asked."""
        fetch(f"{self.address}/script", list(replies))

    def received(self):
        return fetch(f"{self.address}/received")

    def bodies(self):
        return [request["body"] for request in self.received()]

    def uncounted(self):
        """Tokens that were charged and that this server never told of: those of streams that were left."""
        told = fetch(f"{self.address}/told")
        return tuple(charged - told - left for charged, told, left in zip(used(self.model), told, self.left))

    def is_charged(self):
        """Waits until all that this server told is charged, once and exactly."""
        def look():
            if self.uncounted() != (0, 0):
                raise NotYet(f"{self.uncounted()} tokens too many are charged")

        settled(look, NotYet, self.model)

    def is_left(self, begin, *more):
        """A stream that is left after its first words ends here, and is charged for what was delivered.

        `begin` begins the stream, reads some of it, and leaves it; `more` are replies to what else it asks.
        """
        self.is_charged()
        self.script({"text": "one two three", "wait": True}, *more)
        begin()
        same(fetch(f"{self.address}/left"), {"left": True}, "the stream")

        def look():
            if self.uncounted()[1] <= 0:
                raise NotYet("a stream that was left")
            return self.uncounted()

        prompt, output = settled(look, NotYet, self.model)
        # Nobody counted: a quarter of the bytes.
        assert prompt > 0 and output <= 4, f"{prompt} and {output} tokens are charged for three words"
        self.left = [earlier + now for earlier, now in zip(self.left, (prompt, output))]

    def is_asked_again(self, ask):
        """What fails is repeated when it should be, by the cloud or by the client, and charged once.

        `ask` takes a key and answers the text.
        """
        # The client repeats what a server could not answer; the cloud waits for one that is busy, as long as it said.
        for reply, wait in [({"status": 500}, 0.0), ({"status": 503}, 0.0), ({"status": 429, "headers": {"retry-after": "2"}}, 2.0)]:
            self.script(reply, {"text": "At last."})
            same(ask(KEY).strip(), "At last.", "the answer in the end")
            first, second = [request["seconds"] for request in self.received()]
            assert second - first >= wait, f"asked again after {second - first:.2f} s, told to wait {wait} s"
            self.is_charged()
        self.is_left(lambda: self.at_its_limit(ask), {"text": "At last."})

    def at_its_limit(self, ask):
        """A client whose key has all it may have in flight is refused for a second, and waits so long."""
        key = narrow_key()
        stream = opened(f"{BASE}/chat/completions", {"model": self.model, "messages": [{"role": "user", "content": "x"}], "stream": True}, key)
        stream.readline()
        # Its place is free before the client comes back for the second time, and not before it came for the first.
        leaving = threading.Timer(1.5, stream.close)
        leaving.start()
        start = time.monotonic()
        same(ask(key).strip(), "At last.", "the answer in the end")
        waited = time.monotonic() - start
        leaving.join()
        assert waited >= 1.0, f"came back after {waited:.2f} s, told to wait 1 s"


def main():
    """Prints `ok NAME` or `FAIL NAME: why` per check; the exit status is 0 only if all passed."""
    failed = 0
    for function in CHECKS:
        try:
            function()
            print(f"ok {function.__name__}", flush=True)
        except Exception as error:  # one failing check must not hide the others
            failed += 1
            why = " ".join(f"{type(error).__name__}: {error}".split())
            print(f"FAIL {function.__name__}: {why}", flush=True)
    sys.exit(1 if failed else 0)
