"""Measures a built Sublet on this machine and prints a Markdown table.

Standard library only. Loopback only. Every loop is counted, every wait has a deadline, and
every program started here is ended here.
"""

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time

PROMPT = "Once upon a time there was a small cloud that sold what it did not need."
# As short as can be where the engine's share is in the way.
SHORT_PROMPT = "Once"
MODEL = "sublet-mini"
READY_SECONDS_MAX = 60
REQUEST_SECONDS_MAX = 120
STOP_SECONDS_MAX = 40
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def main():
    arguments = parse()
    rounds = Rounds(quick=arguments.quick)
    with tempfile.TemporaryDirectory(prefix="sublet-bench-", dir=arguments.directory) as scratch:
        scratch = pathlib.Path(scratch)
        table = Table()
        table.conditions(arguments.binary)
        if arguments.measure:
            measure_ledger(table, arguments.measure, scratch, rounds)
        measure_start(table, arguments.binary, scratch, rounds)
        with Cloud(arguments.binary, scratch / "serving") as cloud:
            measure_memory(table, cloud)
            measure_speed(table, cloud, rounds)
            measure_processor(table, cloud, arguments.measure, scratch, rounds)
        table.print()


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True, type=os.path.abspath)
    parser.add_argument("--measure", type=os.path.abspath, help="the example of that name; without it some rows are missing")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--directory", help="where scratch data goes; the disk that is measured")
    return parser.parse_args()


class Rounds:
    """How often each thing is done."""

    def __init__(self, quick):
        self.starts = 3 if quick else 9
        self.ledger = 200 if quick else 1000
        self.blocks = 3 if quick else 7
        self.requests_per_block = 100 if quick else 300
        self.proxied_per_block = 1000 if quick else 3000
        self.speed = 2 if quick else 5


class Table:
    """Collects rows and notes."""

    def __init__(self):
        self.notes, self.rows = [], []

    def conditions(self, binary):
        version = output(["git", "log", "-1", "--format=%h %cs"])
        changed = "with uncommitted changes" if output(["git", "status", "--porcelain", "--", "crates", "Cargo.toml"]) else "unchanged"
        model = next((line.split(":")[1].strip() for line in read("/proc/cpuinfo").splitlines() if line.startswith("model name")), "?")
        memory = int(re.search(r"MemTotal:\s+(\d+)", read("/proc/meminfo")).group(1)) // (1024 * 1024)
        self.notes.append(f"checkout {version}, {changed}; binary of {pathlib.Path(binary).stat().st_size / 1e6:.1f} MB")
        self.notes.append(f"{model}, {os.cpu_count()} cores, {memory} GiB, Linux {os.uname().release}; load average at the start {load()}")

    def row(self, what, figure, spread, target):
        self.rows.append((what, figure, spread, target))
        print(f"... {what}: {figure} ({spread}), load {load()}", flush=True)

    def print(self):
        self.notes.append(f"load average at the end {load()}")
        print("\n" + "\n".join(f"- {note}" for note in self.notes))
        print("\n| what | median | spread | target |\n| --- | --- | --- | --- |")
        for row in self.rows:
            print("| " + " | ".join(row) + " |")


def read(path):
    return pathlib.Path(path).read_text()


def load():
    return " ".join(read("/proc/loadavg").split()[:2])


def output(command):
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout.strip()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def processor_seconds(pid):
    """User and system time of a process and all its threads."""
    fields = read(f"/proc/{pid}/stat").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def memory_megabytes(pid, field):
    return int(re.search(rf"{field}:\s+(\d+) kB", read(f"/proc/{pid}/status")).group(1)) * 1024 / 1e6


class Program:
    """A started program that is ended in any case."""

    def __init__(self, command, log):
        self.log = open(log, "ab")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


class Cloud:
    """`sublet up` on a data directory."""

    def __init__(self, binary, directory):
        self.directory = directory
        self.port = free_port()
        self.begun = time.perf_counter()
        address = f"127.0.0.1:{self.port}"
        self.program = Program([binary, "up", "--data-dir", str(directory), "--listen", address], f"{directory}.log")
        self.pid = self.program.process.pid
        self.ready_seconds = self.wait_until_ready()
        credentials = json.loads((directory / "credentials.json").read_text())
        self.headers = {"authorization": f"Bearer {credentials['project_key']}", "content-type": "application/json"}

    def wait_until_ready(self):
        while time.perf_counter() - self.begun < READY_SECONDS_MAX:
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", "/readyz")
                if connection.getresponse().status == 200:
                    return time.perf_counter() - self.begun
            if self.program.process.poll() is not None:
                break
            time.sleep(0.002)
        self.program.stop()
        raise SystemExit(f"sublet did not become ready; see its log:\n{read(f'{self.directory}.log')[-2000:]}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.program.stop()


class Caller:
    """One kept connection."""

    def __init__(self, port, headers):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=REQUEST_SECONDS_MAX)
        self.headers = headers

    def get(self, path):
        self.connection.request("GET", path, headers=self.headers)
        return self.answer()

    def complete(self, tokens, prompt=PROMPT):
        body = json.dumps({"model": MODEL, "prompt": prompt, "max_tokens": tokens, "seed": 1})
        self.connection.request("POST", "/v1/completions", body=body, headers=self.headers)
        return self.answer()

    def answer(self):
        response = self.connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise SystemExit(f"the answer was {response.status}: {body[:300]}")
        return body


def spread(values, form):
    return f"{form(min(values))} – {form(max(values))}, n = {len(values)}"


def measure_ledger(table, measure, scratch, rounds):
    directory = scratch / "ledger"
    directory.mkdir()
    found = json.loads(subprocess.run([measure, "money", str(directory), str(rounds.ledger)], capture_output=True, text=True, timeout=600, check=True).stdout)
    targets = {"grant_and_settle": "≤ 1 ms"}
    names = {
        "grant_and_settle": "hold and settle, SQLite: one grant and one settled record, two commits",
        "grant": "of it the grant",
        "settle": "of it the settlement",
        "return": "giving the rest back",
        "settle_64": "settling 64 records in one commit",
        "plain_sync": "for comparison: one appended 4 KiB page and its fdatasync",
    }
    for key, name in names.items():
        times = found[key]
        table.row(name, f"{times['median'] / 1000:.2f} ms", f"95 % ≤ {times['p95'] / 1000:.2f} ms, n = {times['rounds']}", targets.get(key, ""))


def measure_start(table, binary, scratch, rounds):
    seconds = lambda value: f"{value:.2f} s"
    fresh, again = [], []
    for number in range(rounds.starts):
        directory = scratch / f"start-{number}"
        for times in (fresh, again):
            with Cloud(binary, directory) as cloud:
                times.append(cloud.ready_seconds)
        shutil.rmtree(directory)
    table.row("ready to serve, new data directory", seconds(statistics.median(fresh)), spread(fresh, seconds), "≤ 2 s")
    table.row("ready to serve, existing data directory", seconds(statistics.median(again)), spread(again, seconds), "≤ 2 s")


def measure_memory(table, cloud):
    megabytes = lambda field: f"{memory_megabytes(cloud.pid, field):.0f} MB"
    table.row("resident after the start", megabytes("VmRSS"), "one reading", "≤ 150 MB")
    caller = Caller(cloud.port, cloud.headers)
    for _ in range(100):
        caller.complete(16)
    table.row("resident after 100 requests of 16 tokens", megabytes("VmRSS"), f"highest {megabytes('VmHWM')}", "≤ 150 MB")


def measure_speed(table, cloud, rounds):
    form = lambda value: f"{value:.0f}"
    for concurrent in (1, 8):
        rates = [tokens_per_second(cloud, concurrent) for _ in range(rounds.speed)]
        table.row(f"tokens per second, {concurrent} at once, 200 tokens each", form(statistics.median(rates)), spread(rates, form), "")


def tokens_per_second(cloud, concurrent):
    counts = []

    def call():
        counts.append(json.loads(Caller(cloud.port, cloud.headers).complete(200))["usage"]["completion_tokens"])

    threads = [threading.Thread(target=call) for _ in range(concurrent)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(counts) != concurrent:
        raise SystemExit("a request failed")
    return sum(counts) / (time.perf_counter() - started)


def processor_per_call(pid, call, count):
    before = processor_seconds(pid)
    for _ in range(count):
        call()
    return (processor_seconds(pid) - before) * 1e6 / count


def blocks(rounds, one):
    return [one() for _ in range(rounds.blocks)]


def measure_processor(table, cloud, measure, scratch, rounds):
    """Processor time for one request: the whole, the engine alone, and a bare proxy."""
    form = lambda value: f"{value:.0f} µs"
    caller = Caller(cloud.port, cloud.headers)
    for _ in range(20):
        answer = caller.complete(1, SHORT_PROMPT)
    count = rounds.requests_per_block
    whole = blocks(rounds, lambda: processor_per_call(cloud.pid, lambda: caller.complete(1, SHORT_PROMPT), count))
    models = blocks(rounds, lambda: processor_per_call(cloud.pid, lambda: caller.get("/v1/models"), count))
    health = blocks(rounds, lambda: processor_per_call(cloud.pid, lambda: caller.get("/healthz"), count))
    table.row("processor time of a completion of 1 token, all of the server", form(statistics.median(whole)), spread(whole, form), "")
    table.row("processor time of GET /v1/models (key checked, no ledger)", form(statistics.median(models)), spread(models, form), "")
    table.row("processor time of GET /healthz (HTTP alone)", form(statistics.median(health)), spread(health, form), "")
    added = measure_added(table, measure, whole, count) if measure else []
    if shutil.which("nginx") is None:
        table.notes.append("nginx is not installed: no comparison with a bare proxy")
        return
    proxied = measure_nginx(scratch, answer, rounds)
    table.row("processor time of nginx passing the same request and answer on", form(statistics.median(proxied)), spread(proxied, form), "")
    if added:
        ratio = statistics.median(added) / max(statistics.median(proxied), 1)
        table.row("ratio of what the gateway adds to nginx", f"{ratio:.1f}", "", "")


def measure_added(table, measure, whole, count):
    """What is left of a request when the engine's share is taken away."""
    form = lambda value: f"{value:.0f} µs"
    command = [measure, "engine", "models/sublet-mini", str(count)]
    alone = [json.loads(subprocess.run(command, capture_output=True, text=True, timeout=600, check=True).stdout)["cpu_micros"] for _ in whole]
    added = [all_of_it - statistics.median(alone) for all_of_it in whole]
    table.row("the same generation in the engine alone", form(statistics.median(alone)), spread(alone, form), "")
    table.row("**difference: what the gateway adds**", form(statistics.median(added)), spread(added, form), "")
    return added


NGINX = """
daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
    upstream mock {{ server 127.0.0.1:{upstream}; keepalive 4; }}
    server {{
        listen 127.0.0.1:{port};
        keepalive_requests 1000000;
        location / {{ proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection ""; }}
    }}
}}
"""


def measure_nginx(scratch, answer, rounds):
    directory = scratch / "nginx"
    directory.mkdir()
    directory.chmod(0o755)
    upstream, port = Upstream(answer), free_port()
    configuration = directory / "nginx.conf"
    configuration.write_text(("user root;" if os.getuid() == 0 else "") + NGINX.format(directory=directory, upstream=upstream.port, port=port))
    program = Program(["nginx", "-c", str(configuration), "-e", str(directory / "start.log")], directory / "out.log")
    try:
        wait_for_port(port)
        worker = int(output(["pgrep", "-P", str(program.process.pid)]).split()[0])
        caller = Caller(port, {"authorization": "Bearer " + "k" * 40, "content-type": "application/json"})
        for _ in range(20):
            caller.complete(1, SHORT_PROMPT)
        return blocks(rounds, lambda: processor_per_call(worker, lambda: caller.complete(1, SHORT_PROMPT), rounds.proxied_per_block))
    finally:
        program.stop()
        upstream.stop()


def wait_for_port(port):
    deadline = time.perf_counter() + READY_SECONDS_MAX
    while time.perf_counter() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.01)
    raise SystemExit("nginx did not listen")


class Upstream:
    """Answers every request with the same bytes, over kept connections."""

    def __init__(self, answer):
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(answer)}\r\n\r\n"
        self.answer = head.encode() + answer
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        pending = b""
        with contextlib.suppress(OSError), connection:
            while chunk := connection.recv(65536):
                pending += chunk
                while (end := pending.find(b"\r\n\r\n")) >= 0:
                    length = re.search(rb"content-length: (\d+)", pending[:end].lower())
                    whole = end + 4 + (int(length.group(1)) if length else 0)
                    if len(pending) < whole:
                        break
                    pending = pending[whole:]
                    connection.sendall(self.answer)

    def stop(self):
        self.listener.close()


if __name__ == "__main__":
    main()
