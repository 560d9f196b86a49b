"""Instructions for each completion of one token, by function, counted by callgrind."""

import argparse
import collections
import json
import pathlib
import re
import subprocess
import time

from measure import READY_SECONDS_MAX, SHORT_PROMPT, Caller, Program, free_port, output, read

SHOWN = 40


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--scratch", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    few = count(arguments, arguments.requests)
    many = count(arguments, 3 * arguments.requests)
    each = {name: (many[name] - few.get(name, 0)) / (2 * arguments.requests) for name in many}
    total = sum(each.values())
    print(f"{total / 1e6:.2f} million instructions for each completion of one token\n")
    for name, instructions in sorted(each.items(), key=lambda item: -item[1])[:SHOWN]:
        print(f"{instructions / total:6.1%} {instructions / 1e3:9.1f} k  {name}")


def count(arguments, requests):
    directory = arguments.scratch / f"data-{requests}"
    found = arguments.scratch / f"callgrind-{requests}"
    port = free_port()
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={found}", arguments.binary]
    command += ["up", "--data-dir", str(directory), "--listen", f"127.0.0.1:{port}"]
    program = Program(command, arguments.scratch / f"log-{requests}")
    try:
        key = wait_for_key(directory, port)
        caller = Caller(port, {"authorization": f"Bearer {key}", "content-type": "application/json"})
        for _ in range(requests):
            caller.complete(1, SHORT_PROMPT)
    finally:
        program.stop()
    return by_function(found)


def wait_for_key(directory, port):
    # Under valgrind everything takes about fifty times as long.
    for _ in range(READY_SECONDS_MAX * 50):
        try:
            if Caller(port, {}).get("/readyz") is not None:
                return json.loads(read(directory / "credentials.json"))["project_key"]
        except (OSError, SystemExit):
            time.sleep(0.1)
    raise SystemExit("the cloud did not start")


def by_function(found):
    counts = collections.Counter()
    for line in output(["callgrind_annotate", "--threshold=100", str(found)]).splitlines():
        match = re.match(r"\s*([\d,]+) \(\s*[\d.]+%\)\s+(?:\S*:)?(.*?)(?: \[.*\])?$", line)
        if match and match.group(2) != "PROGRAM TOTALS":
            counts[match.group(2)] += int(match.group(1).replace(",", ""))
    return counts


if __name__ == "__main__":
    main()
