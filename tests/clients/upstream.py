"""A server that speaks OpenAI's API by script: it decides what a model of its own would decide.

Every suite has a room here, so that suites can run side by side. In room R, `/R/v1` is the API;
`POST /R/script` takes the replies to come, in order; `GET /R/received` gives what was asked since;
`GET /R/told` adds up the usage of all answers so far; `GET /R/left` answers when the reader of a
stream that waits has gone. Embeddings need no script:
a vector says which input it belongs to and how long that was.

A reply is an object: `text` or `calls` (`name`, `arguments`) with `usage` (prompt, output), streamed
if the request wants a stream; `wait` leaves a stream open after its text; `status` from 400 on is
an error, with `headers` if given. What is asked without a reply is an error too.

Prints its address on the first line; ends when its standard input does.
"""

import array
import base64
import json
import queue
import select
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Seconds that a stream waits to be left, and that one waits to hear of it.
WAIT_MAX = 30


class Room:
    def __init__(self):
        self.lock = threading.Lock()
        self.told = [0, 0]
        self.script([])

    def script(self, replies):
        with self.lock:
            self.replies, self.requests, self.left = list(replies), [], queue.Queue()

    def take(self, path, body):
        with self.lock:
            self.requests.append({"path": path, "body": body, "seconds": time.monotonic()})
            if path == "/embeddings" and not self.replies:
                return {}
            return self.replies.pop(0) if self.replies else {"status": 400, "message": "the script has no reply left"}

    def tell(self, answer):
        """Keeps count of what an answer says of itself."""
        usage = answer.get("usage")
        if usage:
            with self.lock:
                self.told[0] += usage["prompt_tokens"]
                self.told[1] += usage.get("completion_tokens", 0)
        return answer


ROOMS = {}
ROOMS_LOCK = threading.Lock()


def room(name):
    with ROOMS_LOCK:
        return ROOMS.setdefault(name, Room())


def usage_of(reply):
    prompt, output = reply.get("usage", (11, 7))
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}


def calls_of(reply):
    function = lambda call: {"name": call["name"], "arguments": json.dumps(call["arguments"])}
    return [{"id": f"call_{n}", "type": "function", "function": function(call)} for n, call in enumerate(reply.get("calls", []))]


def whole(reply):
    calls = calls_of(reply)
    message = {"role": "assistant", "content": reply.get("text"), **({"tool_calls": calls} if calls else {})}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}
    return {"id": "theirs", "object": "chat.completion", "created": 1, "model": "theirs", "choices": [choice], "usage": usage_of(reply)}


def deltas(reply):
    """What a stream says, in pieces as small as servers send them."""
    yield {"role": "assistant", "content": ""}
    for word in (reply.get("text") or "").split(" "):
        if word:
            yield {"content": word + " "}
    for index, call in enumerate(calls_of(reply)):
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        yield {"tool_calls": [{**call, "index": index, "function": {"name": name, "arguments": ""}}]}
        for part in (arguments[:5], arguments[5:]):
            yield {"tool_calls": [{"index": index, "function": {"arguments": part}}]}


def events(reply):
    object_of = lambda choices: {"id": "theirs", "object": "chat.completion.chunk", "created": 1, "model": "theirs", "choices": choices}
    for delta in deltas(reply):
        yield object_of([{"index": 0, "delta": delta, "finish_reason": None}])
    if not reply.get("wait"):
        yield object_of([{"index": 0, "delta": {}, "finish_reason": "tool_calls" if reply.get("calls") else "stop"}])
        yield {**object_of([]), "usage": usage_of(reply)}


def embeddings(body):
    texts = body["input"]
    if isinstance(texts, str) or (texts and isinstance(texts[0], int)):
        texts = [texts]
    vectors = [[float(len(text)), float(index), 0.5, -2.0] for index, text in enumerate(texts)]
    if body.get("encoding_format") == "base64":
        vectors = [base64.b64encode(array.array("f", vector).tobytes()).decode() for vector in vectors]
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    tokens = sum(len(text) for text in texts)
    return {"object": "list", "data": data, "model": "theirs", "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def answer(self, status, value, headers=()):
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in [("content-type", "application/json"), ("content-length", str(len(body))), *headers]:
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        _, name, path = self.path.split("/", 2)
        if path == "received":
            self.answer(200, room(name).requests)
        elif path == "told":
            self.answer(200, room(name).told)
        elif path == "left":
            try:
                self.answer(200, room(name).left.get(timeout=WAIT_MAX))
            except queue.Empty:
                self.answer(504, {"message": "no stream was left"})
        else:
            self.answer(200, {"object": "list", "data": []})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        _, name, path = self.path.split("/", 2)
        if path == "script":
            room(name).script(body)
            return self.answer(200, {})
        path = path.removeprefix("v1")
        reply = room(name).take(path, body)
        if reply.get("status", 200) >= 400:
            error = {"message": reply.get("message", "as the script says"), "type": "scripted", "param": None, "code": None}
            return self.answer(reply["status"], {"error": error}, reply.get("headers", {}).items())
        if path == "/embeddings":
            return self.answer(200, room(name).tell(embeddings(body)))
        if not body.get("stream"):
            return self.answer(200, room(name).tell(whole(reply)))
        self.stream(room(name), reply)

    def stream(self, room, reply):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            for event in events(reply):
                self.wfile.write(b"data: " + json.dumps(room.tell(event)).encode() + b"\n\n")
            if not reply.get("wait"):
                self.wfile.write(b"data: [DONE]\n\n")
                return
            readable, _, _ = select.select([self.connection], [], [], WAIT_MAX)
            is_left = readable and self.connection.recv(1, socket.MSG_PEEK) == b""
        except (BrokenPipeError, ConnectionResetError):
            # Left while it was being written, or with something of it unread.
            is_left = True
        if is_left:
            room.left.put({"left": True})


def main():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    sys.stdin.read()


main()
