"""What the suites of Python clients share: a list of checks, how they are run and reported, the record of
a request as the cloud keeps it, and the scripted server behind a model of the suite's own.
"""

import asyncio
import json
import os
import pathlib
import sys
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


def fetch(url, body=None):
    """The JSON at an address; the project's key opens those of the cloud."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


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


def cost_of(model, **tokens):
    """What tokens of a model cost by the price list."""
    rates = {
        price["meter"]: Decimal(price["amount"]) / price["per"]
        for price in cloud("/prices")["prices"]
        if price["subject"] == {"kind": "model", "name": model}
    }
    return sum(rates[meter] * count for meter, count in tokens.items())


def charged(answer, prompt, output):
    """The record has the counts that the client was shown, and was charged by the price list; answers it."""
    record = record_of(answer)
    used = record["usage"]
    same((used["input_tokens"] + used["cached_input_tokens"], used["output_tokens"]), (prompt, output), "tokens in the record")
    assert prompt > 0 and output > 0, record
    same(Decimal(record["cost"]["amount"]), cost_of(record["model"], **used), "the cost in the record")
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

    def is_left(self, begin):
        """A stream that is left after its first words ends here, and is charged for what was delivered.

        `begin` begins the stream, reads some of it, and leaves it.
        """
        self.is_charged()
        self.script({"text": "one two three", "wait": True})
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
        """A client that repeats waits as long as it is told, and is charged once."""
        for reply, wait in [({"status": 503}, 1.0), ({"status": 429, "headers": {"retry-after": "2"}}, 2.0)]:
            self.script(reply, {"text": "At last."})
            same(ask().strip(), "At last.", "the answer in the end")
            first, second = [request["seconds"] for request in self.received()]
            assert second - first >= wait, f"asked again after {second - first:.2f} s, told to wait {wait} s"
            self.is_charged()


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
