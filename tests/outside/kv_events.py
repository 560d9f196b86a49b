"""Has libzmq publish what caches keep, in the shapes of vLLM and SGLang, and sees where requests go.

Usage: kv_events.py. Reads the environment that every suite has; SUBLET_DATA is the cloud's data directory. The
engines are two small servers here: each answers completions and keeps what it was asked.
"""

import json
import os
import pathlib
import shutil
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import zmq

BASE = os.environ["SUBLET_API_BASE"]
ROOT = BASE.removesuffix("/v1")
PROJECT, OPERATOR = os.environ["SUBLET_PROJECT_KEY"], os.environ["SUBLET_OPERATOR_KEY"]
PUBLISHED = pathlib.Path(__file__).parents[2] / "models/sublet-mini"
BLOCK = 16
WAIT_MAX = 20
MODEL = "outside/cached"


class BlockStored(msgspec.Struct, array_like=True, omit_defaults=True, tag=True):
    """As versions write it that have arrays."""

    block_hashes: list
    parent_block_hash: object
    token_ids: list
    block_size: int
    lora_id: object = None
    medium: object = None


class EventBatch(msgspec.Struct, array_like=True, omit_defaults=True):
    ts: float
    events: list
    data_parallel_rank: object = None


def newer(name, **fields):
    """As versions write it that have maps."""
    return {"type": name, **fields}


class Engine:
    """A server, and the socket at which it says what its cache keeps."""

    def __init__(self, context):
        self.asked = asked = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.answer({"object": "list", "data": []})

            def do_POST(self):
                asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
                choice = {"index": 0, "text": "hi", "finish_reason": "stop", "logprobs": None}
                self.answer({"id": "c", "object": "text_completion", "created": 1, "model": "m", "choices": [choice], "usage": usage})

            def answer(self, body):
                data = json.dumps(body).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.socket = context.socket(zmq.XPUB)
        self.events = f"tcp://127.0.0.1:{self.socket.bind_to_random_port('tcp://127.0.0.1')}"
        self.number = 0

    @property
    def base_url(self):
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    def subscribed(self):
        assert self.socket.poll(WAIT_MAX * 1000), "nobody subscribed"
        assert self.socket.recv() == b"\x01", "it subscribes to all topics"

    def publish(self, batch):
        self.socket.send_multipart((b"", self.number.to_bytes(8, "big"), msgspec.msgpack.encode(batch)))
        self.number += 1


def call(method, path, key, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(ROOT + path, data, headers, method=method), timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read().decode()[:500]}") from None


def offer(engines):
    folder = pathlib.Path(os.environ["SUBLET_DATA"]) / "tokenizers/outside"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copy(PUBLISHED / "tokenizer.json", folder)
    body = {"name": MODEL, "owned_by": "outside", "context_window": 8192, "tokenizer": "outside"}
    model = call("POST", "/operator/v1/remote_models", OPERATOR, body)["id"]
    replicas = []
    for engine, kind in zip(engines, ("sglang", "vllm")):
        body = {"model": model, "base_url": engine.base_url, "upstream_model": "m", "engine": kind, "kv_events": engine.events}
        replicas.append(call("POST", "/operator/v1/replicas", OPERATOR, body)["id"])
    lists = call("GET", "/operator/v1/price_lists", OPERATOR)["data"][0]
    lists = call("GET", f"/operator/v1/price_lists/{lists['version']}", OPERATOR)
    ours = os.environ["SUBLET_MODEL"]
    added = [{**price, "subject": {"kind": "model", "name": MODEL}} for price in lists["prices"] if price["subject"].get("name") == ours]
    body = {"name": lists["name"], "currency": lists["currency"], "prices": lists["prices"] + added}
    call("POST", "/operator/v1/price_lists", OPERATOR, body)
    return replicas


def ask(tokens):
    call("POST", "/v1/completions", PROJECT, {"model": MODEL, "prompt": tokens, "max_tokens": 4})


def known(replica, tokens):
    """Waits until the cloud knows so many tokens of a replica's cache."""
    deadline = time.monotonic() + WAIT_MAX
    while True:
        seen = call("GET", f"/operator/v1/replicas/{replica}", OPERATOR)["seen"]
        if seen and seen["cached_tokens"] == tokens:
            return
        assert time.monotonic() < deadline, f"{replica} has {seen}, not {tokens}"
        time.sleep(0.05)


def goes_to(engines, chosen, tokens, times=4):
    before = [len(engine.asked) for engine in engines]
    for turn in range(times):
        ask(tokens + [turn + 1])
    grown = [len(engine.asked) - count for engine, count in zip(engines, before)]
    wanted = [times if engine is chosen else 0 for engine in engines]
    assert grown == wanted, f"{grown} requests, not {wanted}"


def main():
    context = zmq.Context()
    engines = [Engine(context), Engine(context)]
    replicas = offer(engines)
    prompts = [[(start + 7 * n) % 500 for n in range(60 * BLOCK)] for start in (11, 12)]
    for _ in range(4):
        ask([1, 2, 3])
    for engine, replica in zip(engines, replicas):
        engine.subscribed()
        engine.publish(EventBatch(1.0, []))
        known(replica, 0)
    print("ok libzmq and the cloud understand each other")
    stored = BlockStored(list(range(60)), None, prompts[0], BLOCK, None, "GPU")
    engines[0].publish(EventBatch(2.0, [stored], 0))
    known(replicas[0], 60 * BLOCK)
    goes_to(engines, engines[0], prompts[0])
    print("ok requests go where arrays say that their beginning is")
    salt = next(asked["cache_salt"] for asked in engines[1].asked)
    names = [bytes([n]) * 32 for n in range(60)]
    stored = newer("BlockStored", block_hashes=names, parent_block_hash=None, token_ids=prompts[1], block_size=BLOCK,
                   medium="GPU", extra_keys=[[salt]] + [None] * 59)
    engines[1].publish({"ts": 3.0, "events": [stored], "data_parallel_rank": 0})
    known(replicas[1], 60 * BLOCK)
    goes_to(engines, engines[1], prompts[1])
    print("ok requests go where maps say that their tenant's beginning is")
    engines[1].publish({"ts": 4.0, "events": [newer("BlockRemoved", block_hashes=names, medium="GPU")]})
    known(replicas[1], 0)
    engines[0].publish([5.0, [["AllBlocksCleared"]]])
    known(replicas[0], 0)
    print("ok what is removed is gone")
    engines[0].socket.close(linger=0)
    known(replicas[0], None)
    before = sum(len(engine.asked) for engine in engines)
    ask(prompts[0])
    assert sum(len(engine.asked) for engine in engines) == before + 1
    print("ok requests are served when nobody publishes")


try:
    main()
except AssertionError as error:
    print(f"FAIL {error}")
    sys.exit(1)
