"""The embedded engine beside llama.cpp: the same weights, threads and prompts, and logits checked against a third.

Called by bench/engine.sh. It makes a random Llama in several formats (engine_model.py), lets Sublet serve all of
them, checks what it answers against an implementation of its own, and measures it in turns with llama.cpp, where
that is installed (engine_llama.py). Fails if the logits do not agree. Loopback only; every program started here is
ended here.
"""

import argparse
import concurrent.futures
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gateway import Programs, call, free_port, is_ready, processor_seconds, wait_until

try:
    import engine_model as model
    import numpy
except ImportError as missing:
    raise SystemExit(f"nothing was measured: {missing}; bench/engine.sh says what to install")

MADE = ("F16", "Q8_0", "Q4_0")
# Only llama.cpp makes these; most of the weights are Q4_K, some Q6_K.
MADE_BY_LLAMA = ("Q4_K_M",)
# The largest difference allowed in a log-probability. Both engines round activations to 8 bits before they multiply
# them with quantized weights (llama.cpp more coarsely with Q4_K), and llama.cpp to f16 with those of f16; the
# implementation here does not.
TOLERANCE = {("Sublet", "F16"): 0.001, ("llama.cpp", "F16"): 0.02, ("llama.cpp", "Q4_K_M"): 0.25}
TOLERANCE_QUANTIZED = 0.15
CHECKED_PROMPTS, CHECKED_TOKENS, TOP = (3, 17, 64, 130), 24, 5
PROMPT, OUTPUT, LONG_PROMPT, CACHED_PROMPT = 128, 64, 512, 1000
REQUEST_MAX_S = 300


class Prompts:
    """Prompts that nobody has seen before, in an order that is always the same."""

    def __init__(self, seed):
        self.random = numpy.random.default_rng(seed)

    def next(self, length):
        return self.random.integers(model.PLAIN_TOKENS.start, model.PLAIN_TOKENS.stop, length).tolist()


class Sublet:
    def __init__(self, programs, options, files):
        data, port = programs.folder / "data", free_port()
        command = [options.binary, "up", "--data-dir", str(data), "--listen", f"127.0.0.1:{port}"]
        process = programs.start("sublet", command, env={**os.environ, "SUBLET_LOG": "warn"})
        self.clock = (lambda: processor_seconds(process.pid)) if options.processor else time.perf_counter
        if not wait_until("sublet", lambda: (data / "credentials.json").exists() and is_ready(port)):
            raise SystemExit("Sublet did not start")
        keys = json.loads((data / "credentials.json").read_text())
        self.key, self.address, operator = keys["project_key"], f"127.0.0.1:{port}", keys["operator_key"]
        base = f"http://{self.address}/operator/v1"
        for kind, file in files.items():
            call("POST", f"{base}/models", operator, {"path": str(file), "name": kind})
        old = call("GET", f"{base}/price_lists", operator)["data"][0]
        shipped = [price for price in old["prices"] if price["subject"]["kind"] == "model"]
        own = [dict(price, subject={"kind": "model", "name": kind}) for kind in files for price in shipped]
        call("POST", f"{base}/price_lists", operator, {"name": old["name"], "currency": old["currency"], "prices": old["prices"] + own})

    def ask(self, kind, prompt, count, **more):
        body = {"model": kind, "prompt": prompt, "max_tokens": count, "temperature": 0, "logit_bias": {str(model.END): -100}, **more}
        connection = http.client.HTTPConnection(self.address, timeout=REQUEST_MAX_S)
        headers = {"content-type": "application/json", "authorization": f"Bearer {self.key}"}
        connection.request("POST", "/v1/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise SystemExit(f"Sublet answered {answer.status}: {answer.read().decode()}")
        return answer

    def complete(self, kind, prompt, count, **more):
        answer = json.load(self.ask(kind, prompt, count, **more))
        if answer["usage"]["completion_tokens"] != count:
            raise SystemExit(f"Sublet made {answer['usage']['completion_tokens']} of {count} tokens")
        return answer

    def seconds(self, kind, prompts, count):
        """From the first request to the last whole answer, all at once."""
        begun = self.clock()
        with concurrent.futures.ThreadPoolExecutor(len(prompts)) as pool:
            list(pool.map(lambda prompt: self.complete(kind, prompt, count), prompts))
        return self.clock() - begun

    def first_token(self, kind, prompt):
        """Seconds to the first event of a stream, and tokens of the prompt that were kept."""
        begun, first, cached = time.perf_counter(), None, 0
        with self.ask(kind, prompt, 4, stream=True, stream_options={"include_usage": True}) as answer:
            for line in answer:
                if not line.startswith(b"data: {"):
                    continue
                first = first or time.perf_counter() - begun
                usage = json.loads(line[6:]).get("usage") or {}
                cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", cached)
        return first, cached

    def prompt_speed(self, kind, prompts):
        return LONG_PROMPT / self.seconds(kind, [prompts.next(LONG_PROMPT)], 1)

    def decode_speed(self, kind, prompts, count):
        """Tokens behind the first: the time of whole answers less that of answers of one token."""
        first = self.seconds(kind, [prompts.next(PROMPT) for _ in range(count)], 1)
        whole = self.seconds(kind, [prompts.next(PROMPT) for _ in range(count)], 1 + OUTPUT)
        return count * OUTPUT / (whole - first)


class Llama:
    """A process that has loaded one file into llama.cpp."""

    def __init__(self, programs, options, file):
        threads = len(os.sched_getaffinity(0))
        clock = "process_time" if options.processor else "perf_counter"
        command = [sys.executable, str(Path(__file__).with_name("engine_llama.py")), clock, str(file), str(threads), "768", "8"]
        with open(programs.folder / f"llama-{file.stem}.log", "w") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        programs.running.append(self.process)
        self.version = self.read()["version"]

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("llama.cpp ended; its log says why")
        return json.loads(line)

    def do(self, task, **more):
        self.process.stdin.write(json.dumps({"task": task, **more}) + "\n")
        self.process.stdin.flush()
        return self.read()

    def prompt_speed(self, _, prompts):
        return LONG_PROMPT / self.do("generate", prompts=[prompts.next(LONG_PROMPT)], count=1)["first"]

    def decode_speed(self, _, prompts, count):
        done = self.do("generate", prompts=[prompts.next(PROMPT) for _ in range(count)], count=1 + OUTPUT)
        return count * OUTPUT / done["rest"]

    def logprobs(self, tokens, folder):
        file = str(folder / "logits.npy")
        self.do("logits", tokens=tokens, file=file)
        logits = numpy.load(file).astype(numpy.float64)
        largest = logits.max(-1, keepdims=True)
        return logits - largest - numpy.log(numpy.exp(logits - largest).sum(-1, keepdims=True))


def has_llama():
    try:
        import llama_cpp  # noqa: F401
        return True
    except (ImportError, OSError, RuntimeError):
        print("left out: llama.cpp (llama-cpp-python) is not installed", file=sys.stderr)
        return False


class Check:
    """Collects how far an engine is from the reference."""

    def __init__(self, name, kind):
        self.name, self.allowed = name, TOLERANCE.get((name, kind), TOLERANCE_QUANTIZED)
        self.differences, self.same, self.wrong, self.count = [], 0, 0, 0

    def chosen(self, token, expected):
        """A greedy choice is right if nothing is likelier by more than two errors."""
        best = int(expected.argmax())
        self.count += 1
        self.same += token == best
        self.wrong += bool(expected[best] - expected[token] > 2 * self.allowed)

    def agrees(self):
        return max(self.differences) <= self.allowed and self.wrong == 0 and self.count >= CHECKED_TOKENS


def check(kind, file, sublet, llama, folder):
    """Compares greedy answers and their log-probabilities; whether all agree."""
    reference, prompts = model.Reference(file), Prompts(7)
    names = model.vocabulary()[0]
    ids = {name: token for token, name in enumerate(names)}
    checks = [Check("Sublet", kind), *([Check("llama.cpp", kind)] if llama else [])]
    for length in CHECKED_PROMPTS:
        prompt = prompts.next(length)
        seen = sublet.complete(kind, prompt, CHECKED_TOKENS, logprobs=TOP)["choices"][0]["logprobs"]
        # A lone byte has no text of its own: an answer with one is followed up to there.
        count = next((at for at, text in enumerate(seen["tokens"]) if text not in ids), CHECKED_TOKENS)
        tokens = [ids[text] for text in seen["tokens"][:count]]
        whole = prompt + tokens[:-1]
        expected = reference.logprobs(whole)[length - 1:]
        others = llama.logprobs(whole, folder)[length - 1:] if llama else expected
        for at, (token, own, other) in enumerate(zip(tokens, expected, others)):
            own[model.END] = other[model.END] = -numpy.inf
            checks[0].chosen(token, own)
            known = {ids[text]: value for text, value in seen["top_logprobs"][at].items() if text in ids}
            checks[0].differences += [abs(value - own[known_id]) for known_id, value in known.items()]
            if llama:
                checks[1].chosen(int(other.argmax()), own)
                checks[1].differences += [abs(other[known_id] - own[known_id]) for known_id in known]
    good = True
    for done in checks:
        largest, mean = max(done.differences), statistics.mean(done.differences)
        good = good and done.agrees()
        print(f"| {kind} | {done.name} | {largest:.5f} | {mean:.5f} | {done.allowed} | {done.same} of {done.count} | "
              f"{'yes' if done.agrees() else '**no**'} |", flush=True)
    return good


def make(folder, with_llama):
    files = {}
    for kind in MADE:
        files[kind] = folder / f"{kind}.gguf"
        if not files[kind].exists():
            model.write(files[kind], kind)
    for kind in MADE_BY_LLAMA if with_llama else ():
        files[kind] = folder / f"{kind}.gguf"
        if not files[kind].exists():
            maker = [sys.executable, str(Path(__file__).with_name("engine_llama.py")), "quantize", str(files["F16"]), str(files[kind]), kind]
            subprocess.run(maker, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return files


PLANS = {
    f"prompt of {LONG_PROMPT}": lambda engine, kind, prompts: engine.prompt_speed(kind, prompts),
    "output, 1 at once": lambda engine, kind, prompts: engine.decode_speed(kind, prompts, 1),
    "output, 8 at once": lambda engine, kind, prompts: engine.decode_speed(kind, prompts, 8),
}


def measure(options, files, sublet, llamas):
    """Tokens a second of every plan, in turns; a table of medians."""
    seen, prompts = {}, Prompts(time.time_ns())
    for number in range(options.rounds + 1):
        for kind in files:
            engines = {"Sublet": sublet, **({"llama.cpp": llamas[kind]} if llamas else {})}
            for plan, run in PLANS.items():
                for name, engine in engines.items():
                    if number > 0 or plan != "output, 8 at once":
                        speed = run(engine, kind, prompts)
                        seen.setdefault((kind, plan, name), []).extend([speed] * (number > 0))
                        print(f"... {kind}, {plan}, {name}: {speed:.1f}", file=sys.stderr, flush=True)
        print("warm" if number == 0 else f"round {number} of {options.rounds}", file=sys.stderr)
    lines = ["| weights | tokens a second of | Sublet | llama.cpp | Sublet / llama.cpp |", "| --- | --- | --- | --- | --- |"]
    for kind in files:
        for plan in PLANS:
            own, other = (seen.get((kind, plan, name)) for name in ("Sublet", "llama.cpp"))
            ratio = f"{statistics.median(own) / statistics.median(other):.2f}" if other else "–"
            lines.append(f"| {kind} | {plan} | {spread(own)} | {spread(other) if other else '–'} | {ratio} |")
    return "\n".join(lines)


def spread(speeds):
    return f"{statistics.median(speeds):.1f} ({min(speeds):.1f} – {max(speeds):.1f})"


def measure_prefix(options, files, sublet):
    """Time to the first token of a new prompt, and of the same prompt again; whether that is at most half."""
    prompts, good = Prompts(time.time_ns() + 1), True
    print(f"\n| weights | first token, new prompt of {CACHED_PROMPT} | the same again | kept | ratio |\n| --- | --- | --- | --- | --- |")
    for kind in files:
        new, again = [], []
        for _ in range(options.rounds):
            prompt = prompts.next(CACHED_PROMPT)
            new.append(sublet.first_token(kind, prompt)[0])
            first, kept = sublet.first_token(kind, prompt)
            again.append(first)
        ratio = statistics.median(again) / statistics.median(new)
        good = good and ratio <= 0.5
        print(f"| {kind} | {statistics.median(new) * 1000:.0f} ms | {statistics.median(again) * 1000:.0f} ms | {kept} | {ratio:.3f} |")
    return good


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", type=Path, help="a folder that keeps the models for the next time")
    parser.add_argument("--only", help="comma-separated formats")
    parser.add_argument("--processor", action="store_true", help="one thread each, measured in processor time")
    parser.add_argument("--check", action="store_true", help="only the logits")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sublet-bench-") as folder:
        folder = Path(folder)
        programs = Programs(folder)
        try:
            good = run(options, programs)
        finally:
            programs.end()
    if not good:
        raise SystemExit("what is marked above does not agree")


def run(options, programs):
    if options.processor:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with_llama, threads = has_llama(), len(os.sched_getaffinity(0))
    kept = options.models or programs.folder / "models"
    kept.mkdir(parents=True, exist_ok=True)
    files = make(kept, with_llama)
    files = {kind: file for kind, file in files.items() if not options.only or kind in options.only.split(",")}
    sublet = Sublet(programs, options, files)
    llamas = {kind: Llama(programs, options, file) for kind, file in files.items()} if with_llama else {}
    version = next((llama.version for llama in llamas.values()), "absent")
    print(f"A Llama of {model.parameters() / 1e6:.0f} million random weights, threads: {threads}; llama-cpp-python {version}.\n")
    print("| weights | engine | largest difference in a log-probability | mean | allowed | likeliest token | agrees |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    good = all([check(kind, file, sublet, llamas.get(kind), programs.folder) for kind, file in files.items()])
    if options.check:
        return good
    what = "Tokens a second of processor time. " if options.processor else ""
    print(f"\n{what}Medians of {options.rounds} rounds; output of {OUTPUT} tokens after a prompt of {PROMPT}.\n")
    print(measure(options, files, sublet, llamas))
    return measure_prefix(options, files, sublet) and good


if __name__ == "__main__":
    main()
