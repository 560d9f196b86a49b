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
            measure_processor(table, cloud, scratch, rounds)
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
        self.requests_per_block = 320 if quick else 960
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
    found = json.loads(subprocess.run([measure, str(directory), str(rounds.ledger)], capture_output=True, text=True, timeout=600, check=True).stdout)
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


# Where a thread's time goes, by the beginning of its name. What is not named is HTTP, the gateway and the use cases.
PARTS = {"sublet-model": "engine", "sublet-math": "engine", "sqlx-sqlite": "database", "usage-journal": "journal"}
# What is done after an answer, such as settling, has ended by then.
AFTERWARDS_SECONDS = 0.5


def processor_seconds_by_part(pid):
    found = dict.fromkeys(["requests", *PARTS.values()], 0.0)
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            name, fields = re.match(r"\d+ \((.*)\) (.*)", (task / "stat").read_text()).groups()
            part = next((part for start, part in PARTS.items() if name.startswith(start)), "requests")
            found[part] += sum(map(int, fields.split()[11:13])) / TICKS_PER_SECOND
    return found


def processor_per_call(pid, port, headers, call, count, concurrent):
    """Microseconds of each part for one call, of so many at once."""
    def caller():
        own = Caller(port, headers)
        for _ in range(count // concurrent):
            call(own)

    threads = [threading.Thread(target=caller) for _ in range(concurrent)]
    before = processor_seconds_by_part(pid)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    time.sleep(AFTERWARDS_SECONDS)
    after = processor_seconds_by_part(pid)
    return {part: (after[part] - before[part]) * 1e6 / (count // concurrent * concurrent) for part in after}


def blocks(rounds, one):
    return [one() for _ in range(rounds.blocks)]


def measure_processor(table, cloud, scratch, rounds):
    """Processor time for one request, by the part of the server that spends it, beside a bare proxy."""
    form = lambda value: f"{value:.0f} µs"
    row = lambda name, values: table.row(name, form(statistics.median(values)), spread(values, form), "")
    complete = lambda caller: caller.complete(1, SHORT_PROMPT)
    warm = Caller(cloud.port, cloud.headers)
    for _ in range(20):
        answer = complete(warm)
    own = lambda call, concurrent: blocks(rounds, lambda: processor_per_call(cloud.pid, cloud.port, cloud.headers, call, rounds.requests_per_block, concurrent))
    for path, what in (("/healthz", "HTTP alone"), ("/v1/models", "key checked, no ledger")):
        row(f"processor time of GET {path} ({what})", [sum(parts.values()) for parts in own(lambda caller: caller.get(path), 1)])
    for concurrent in (1, 16):
        parts = own(complete, concurrent)
        added = [sum(of_it.values()) - of_it["engine"] for of_it in parts]
        row(f"**processor time of a completion, without the engine, {concurrent} at once**", added)
        for part, what in (("requests", "HTTP, admission and settling"), ("database", "SQLite"), ("journal", "the journal and its syncs")):
            row(f"of it {what}", [of_it[part] for of_it in parts])
        if shutil.which("nginx") is None:
            table.notes.append("nginx is not installed: no comparison with a bare proxy")
            continue
        proxied = measure_nginx(scratch / f"nginx-{concurrent}", answer, rounds, concurrent)
        row(f"processor time of nginx passing the same request and answer on, {concurrent} at once", proxied)
        table.row("ratio to nginx", f"{statistics.median(added) / max(statistics.median(proxied), 1):.1f}", "", "")


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


def measure_nginx(directory, answer, rounds, concurrent):
    directory.mkdir()
    directory.chmod(0o755)
    upstream, port = Upstream(answer), free_port()
    configuration = directory / "nginx.conf"
    configuration.write_text(("user root;" if os.getuid() == 0 else "") + NGINX.format(directory=directory, upstream=upstream.port, port=port))
    program = Program(["nginx", "-c", str(configuration), "-e", str(directory / "start.log")], directory / "out.log")
    try:
        wait_for_port(port)
        worker = int(output(["pgrep", "-P", str(program.process.pid)]).split()[0])
        headers = {"authorization": "Bearer " + "k" * 40, "content-type": "application/json"}
        complete = lambda caller: caller.complete(1, SHORT_PROMPT)
        one = lambda: processor_per_call(worker, port, headers, complete, rounds.proxied_per_block, concurrent)
        return [sum(parts.values()) for parts in blocks(rounds, one)]
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
