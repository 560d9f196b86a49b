"""Gateways side by side: what one costs per request, and what it adds to the time of an answer.

Called by bench/gateway.sh. Each gateway stands before the same model server, which answers at once; they are
measured in turns, round after round, so that a slow minute of the machine falls on all of them. Processor time
is of the gateway's processes, read from /proc. Needs nothing but Python; peers that are not installed are
left out and named. Loopback only; every program started here is ended here.
"""

import argparse
import concurrent.futures
import json
import os
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
START_MAX_S = 180
MODEL = "bench/far"
OPEN_STREAMS = 5_000
KEYS = (10, 1_000, 10_000, 100_000)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def processes_of(root):
    """A process and all below it."""
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                children = Path(f"/proc/{pid}/task/{task}/children").read_text().split()
                waiting.extend(int(child) for child in children)
        except FileNotFoundError:
            pass
    return found


def processor_seconds(root):
    total = 0
    for pid in processes_of(root):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except FileNotFoundError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def resident_mb(root):
    total = 0
    for pid in processes_of(root):
        try:
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1])
        except FileNotFoundError:
            pass
    return total / 1024


class Programs:
    """Started programs, ended together."""

    def __init__(self, folder):
        self.folder, self.running = folder, []

    def start(self, name, command, **options):
        log = open(self.folder / f"{name}.log", "w")
        program = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, **options)
        self.running.append(program)
        return program

    def end(self):
        for program in reversed(self.running):
            program.send_signal(signal.SIGTERM)
        for program in self.running:
            try:
                program.wait(timeout=15)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait()


def call(method, url, key=None, body=None):
    request = urllib.request.Request(url, method=method)
    request.add_header("content-type", "application/json")
    if key:
        request.add_header("authorization", f"Bearer {key}")
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(request, data, timeout=30) as answer:
        return json.load(answer)


def answers(address, key, model):
    try:
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}
        return "usage" in call("POST", f"http://{address}/v1/chat/completions", key, body)
    except (urllib.error.URLError, OSError, ValueError, TimeoutError):
        return False


def wait_until(what, look):
    deadline = time.monotonic() + START_MAX_S
    while time.monotonic() < deadline:
        if look():
            return True
        time.sleep(0.1)
    print(f"left out: {what} did not answer within {START_MAX_S} s", file=sys.stderr)
    return False


class Gateway:
    def __init__(self, name, address, process, key="none", model=MODEL):
        self.name, self.address, self.process, self.key, self.model = name, address, process, key, model


def start_nginx(programs, upstream):
    program = shutil.which("nginx")
    if not program:
        return None
    port = free_port()
    home = programs.folder / "nginx"
    home.mkdir()
    (home / "nginx.conf").write_text(f"""
daemon off; worker_processes 1; pid {home}/pid; error_log {home}/error.log;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/f; uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
  upstream model {{ server {upstream}; keepalive 128; }}
  server {{ listen 127.0.0.1:{port}; keepalive_requests 1000000;
    location / {{ proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }} }}
}}""")
    process = programs.start("nginx", [program, "-c", str(home / "nginx.conf"), "-p", str(home)])
    return Gateway("nginx", f"127.0.0.1:{port}", process)


def start_router(name, program, more):
    def start(programs, upstream):
        found = shutil.which(program)
        if not found:
            return None
        port = free_port()
        command = [found, *more, "--host", "127.0.0.1", "--port", str(port), "--worker-urls", f"http://{upstream}",
                   "--policy", "round_robin", "--log-level", "error", "--prometheus-port", str(free_port())]
        return Gateway(name, f"127.0.0.1:{port}", programs.start(name, command))
    return start


def start_litellm(programs, upstream):
    found = shutil.which("litellm")
    if not found:
        return None
    port = free_port()
    config = programs.folder / "litellm.yaml"
    config.write_text(f"""
model_list:
  - model_name: {MODEL}
    litellm_params: {{ model: openai/m, api_base: "http://{upstream}/v1", api_key: none }}
""")
    command = [found, "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    # It does not start without a key that nobody can guess.
    key = f"sk-{secrets.token_hex(24)}"
    process = programs.start("litellm", command, env={**os.environ, "LITELLM_MASTER_KEY": key, "LITELLM_LOG": "ERROR"})
    return Gateway("LiteLLM", f"127.0.0.1:{port}", process, key)


def start_sublet(binary):
    def start(programs, upstream):
        data = programs.folder / "data"
        port = free_port()
        process = programs.start("sublet", [binary, "up", "--data-dir", str(data), "--listen", f"127.0.0.1:{port}"],
                                 env={**os.environ, "SUBLET_LOG": "warn"})
        ready = lambda: (data / "credentials.json").exists() and is_ready(port)
        if not wait_until("sublet", ready):
            return None
        keys = json.loads((data / "credentials.json").read_text())
        operator = keys["operator_key"]
        base = f"http://127.0.0.1:{port}"
        model = call("POST", f"{base}/operator/v1/remote_models", operator,
                     {"name": MODEL, "owned_by": "bench", "context_window": 8192, "max_output_tokens": 1024})
        call("POST", f"{base}/operator/v1/replicas", operator,
             {"model": model["id"], "base_url": f"http://{upstream}/v1", "upstream_model": "m", "max_in_flight": 100_000})
        old = call("GET", f"{base}/operator/v1/price_lists", operator)["data"][0]
        own = [dict(price, subject={"kind": "model", "name": MODEL}) for price in old["prices"] if price["subject"]["kind"] == "model"]
        call("POST", f"{base}/operator/v1/price_lists", operator,
             {"name": old["name"], "currency": old["currency"], "prices": old["prices"] + own})
        # Limits on every level, too wide to refuse anything: what they cost is in the figures.
        limits = f"{base}/v1/organization/rate_limits"
        for metric, value in [("requests_per_minute", 100_000_000), ("tokens_per_day", 10_000_000_000)]:
            call("POST", limits, keys["admin_key"], {"metric": metric, "value": value})
        gateway = Gateway("Sublet", f"127.0.0.1:{port}", process, keys["project_key"])
        own = call("GET", f"{base}/v1/account", gateway.key)
        call("POST", limits, keys["admin_key"], {"subject": own["key"], "metric": "concurrent_requests", "value": 100_000})
        call("PUT", f"{base}/v1/organization/projects/{own['project']}/spend_limits/month", keys["admin_key"], {"amount": "1000000"})
        gateway.admin, gateway.project = keys["admin_key"], own["project"]
        return gateway
    return start


def is_ready(port):
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2)
        return True
    except (urllib.error.URLError, OSError):
        return False


class Bench:
    def __init__(self, options, programs):
        self.options, self.programs = options, programs

    def drive(self, gateway, connections, requests, *more):
        """One run: what the callers saw, and the processor time of each request in microseconds."""
        before = processor_seconds(gateway.process.pid) if gateway.process else 0.0
        command = [self.options.load, "drive", gateway.address, gateway.key, gateway.model, str(connections), str(requests), *more]
        seen = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        time.sleep(0.3)  # What follows an answer, such as settling, is part of its cost.
        after = processor_seconds(gateway.process.pid) if gateway.process else 0.0
        if seen["wrong"] * 1_000 > requests:
            raise SystemExit(f"{gateway.name} gave {seen['wrong']} wrong answers of {requests}")
        seen["cpu"] = (after - before) / requests * 1e6
        return seen

    def rounds(self, gateways, plans):
        """Every plan on every gateway, in turns; medians over the rounds."""
        seen = {}
        for number in range(self.options.rounds):
            for plan, (connections, requests, more) in plans.items():
                for gateway in gateways:
                    scaled = max(connections, requests // (20 if gateway.name == "LiteLLM" else 1))
                    if number == 0:
                        self.drive(gateway, connections, max(connections, scaled // 10), *more)
                    run = self.drive(gateway, connections, scaled, *more)
                    seen.setdefault((plan, gateway.name), []).append(run)
            print(f"round {number + 1} of {self.options.rounds}", file=sys.stderr)
        return {key: {name: statistics.median(run[name] for run in runs) for name in ("cpu", "p50", "p90", "p99")}
                | {"rps": statistics.median(run["answered"] / run["seconds"] for run in runs)} for key, runs in seen.items()}


def measure_open(options, programs, gateway, upstream_slow):
    """Memory of a gateway that keeps many streams open."""
    before = resident_mb(gateway.process.pid)
    holder = subprocess.Popen([options.load, "open", gateway.address, gateway.key, gateway.model, str(OPEN_STREAMS)],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        said = holder.stdout.readline().strip()
        if said != "open":
            return None
        return before, resident_mb(gateway.process.pid)
    finally:
        holder.stdin.close()
        holder.wait()


def new_keys(gateway, count):
    """Makes keys, several at once; answers their secrets."""
    path = f"http://{gateway.address}/v1/organization/projects/{gateway.project}/api_keys"
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        made = pool.map(lambda number: call("POST", path, gateway.admin, {"name": f"key {number}"})["value"], range(count))
        return list(made)


def measure_keys(options, programs, gateway, most):
    """One gateway with ever more keys: ten of them in use, and each request another key's."""
    bench, secrets, lines = Bench(options, programs), [], ["| keys | ten in use | each request another key |", "| --- | --- | --- |"]
    file = programs.folder / "keys"
    requests = 2_000 if options.rounds < 3 else 8_000
    few = [gateway.key]
    for count in (count for count in KEYS if count <= most):
        secrets += new_keys(gateway, count - len(secrets))
        cells = []
        for used in (secrets[:10], secrets):
            file.write_text("\n".join(used))
            gateway.key = f"@{file}"
            bench.drive(gateway, 16, requests // 4)
            runs = [bench.drive(gateway, 16, requests) for _ in range(options.rounds)]
            middle = lambda name: statistics.median(run[name] for run in runs)
            cells.append(f"{middle('cpu'):.0f} µs; {middle('p50') / 1000:.2f} / {middle('p99') / 1000:.2f} ms")
        lines.append(f"| {count:,} | " + " | ".join(cells) + " |")
        print(f"{count} keys", file=sys.stderr)
    gateway.key = few[0]
    return "\n".join(lines) + f"\n\nResident with the last: {resident_mb(gateway.process.pid):.0f} MB."


def table(gateways, seen, plans):
    lines = ["| gateway | " + " | ".join(plans) + " |", "| --- |" + " --- |" * len(plans)]
    for gateway in gateways:
        cells = []
        for plan in plans:
            run = seen[(plan, gateway.name)]
            cost = "" if gateway.process is None else f"{run['cpu']:.0f} µs; "
            cells.append(f"{cost}{run['p50'] / 1000:.2f} / {run['p99'] / 1000:.2f} ms; {run['rps']:.0f}/s")
        lines.append(f"| {gateway.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--load", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keys", type=int, default=0, metavar="N", help="only Sublet, with 10 up to N keys")
    parser.add_argument("--only", help="comma-separated names")
    options = parser.parse_args()
    peers = {
        "Sublet": start_sublet(options.binary),
        "nginx": start_nginx,
        "vllm-router": start_router("vllm-router", "vllm-router", []),
        "sglang-router": start_router("sglang-router", "sglang-router", ["launch"]),
        "SMG": start_router("SMG", "smg", ["launch"]),
        "LiteLLM": start_litellm,
    }
    chosen = ["Sublet"] if options.keys else options.only.split(",") if options.only else list(peers)
    with tempfile.TemporaryDirectory(prefix="sublet-bench-") as folder:
        programs = Programs(Path(folder))
        try:
            run(options, programs, {name: peers[name] for name in chosen})
        finally:
            programs.end()


def run(options, programs, peers):
    upstream = f"127.0.0.1:{free_port()}"
    programs.start("upstream", [options.load, "upstream", upstream])
    gateways = [Gateway("(model server alone)", upstream, None)]
    for name, start in peers.items():
        gateway = start(programs, upstream)
        if gateway is None:
            print(f"left out: {name} is not installed", file=sys.stderr)
        elif wait_until(name, lambda: answers(gateway.address, gateway.key, gateway.model)):
            gateways.append(gateway)
    if options.keys:
        sublet = next(gateway for gateway in gateways if gateway.name == "Sublet")
        print(measure_keys(options, programs, sublet, options.keys))
        return
    n = 2_000 if options.rounds < 3 else 8_000
    plans = {
        "whole, 16 at once": (16, n, []),
        "whole, 1 at once": (1, n // 8, []),
        "stream of 32, 16 at once": (16, n // 4, ["stream"]),
        "stream of 32, 1 at once": (1, n // 16, ["stream"]),
    }
    bench = Bench(options, programs)
    seen = bench.rounds(gateways, plans)
    steady = {"whole, 1,000 a second": (64, n, ["rate=1000"])}
    quick = [gateway for gateway in gateways if gateway.name != "LiteLLM"]
    seen |= bench.rounds(quick, steady)
    print("Processor time a request; p50 / p99 of the time to the whole answer; answers a second. Medians of "
          f"{options.rounds} rounds.\n")
    print(table(gateways, seen, plans))
    print()
    print(table(quick, seen, steady))
    memory = [f"{gateway.name} {resident_mb(gateway.process.pid):.0f} MB" for gateway in gateways if gateway.process]
    print("\nResident after the runs: " + ", ".join(memory) + ".")
    print(open_streams(options, programs))


def open_streams(options, programs):
    upstream = f"127.0.0.1:{free_port()}"
    programs.start("slow", [options.load, "upstream", upstream, "slow"])
    other = Programs(programs.folder / "open")
    other.folder.mkdir()
    try:
        gateway = start_sublet(options.binary)(other, upstream)
        if gateway is None or not wait_until("sublet", lambda: answers(gateway.address, gateway.key, gateway.model)):
            return "The open streams were not measured."
        found = measure_open(options, programs, gateway, upstream)
        if found is None:
            return f"Sublet did not open {OPEN_STREAMS} streams."
        before, after = found
        return f"\n{OPEN_STREAMS:,} open streams: Sublet {after:.0f} MB, of which {before:.0f} MB before the first."
    finally:
        other.end()


if __name__ == "__main__":
    main()
