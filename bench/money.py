"""Runs the two programs that measure money, on both databases, and prints a table."""

import json
import platform
import subprocess
import sys

SECONDS_MAX = 3600
# A month of so many charges is to be closed within so many seconds.
MONTH_CHARGES, MONTH_SECONDS = 10_000_000, 60
TARGETS = {"1000": 50_000, "8000": 100_000}


def run(*command):
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS_MAX)
    return json.loads(done.stdout)


def row(what, measured, target=None, unit="/s", least=True):
    """`least`: the target is the least that is wanted, and not the most."""
    if target is None:
        return f"| {what} | {measured:,}{unit} | | |"
    ratio = measured / target if least else target / measured
    return f"| {what} | {measured:,}{unit} | {'≥' if least else '≤'} {target:,}{unit} | {ratio:.2f} |"


def ledger_rows(name, figures):
    for shape, rates in figures["transfers_per_s"].items():
        for batch, rate in rates.items():
            target = TARGETS.get(batch) if name == "SQLite" else None
            yield row(f"{name}: transfers, {int(batch):,} in a commit, {shape}", rate, target)
    hot, even = (figures["transfers_per_s"][shape]["1000"] for shape in ("hot", "uniform"))
    yield row(f"{name}: hot of uniform, 1,000 in a commit", round(100 * hot / even), 100, " %")


def month_rows(name, few, many):
    yield row(f"{name}: charges settled", many["settled_per_s"])
    yield row(f"{name}: charges closed and sealed", many["sealed_per_s"], MONTH_CHARGES // MONTH_SECONDS)
    yield row(f"{name}: lines of a bundle written", many["bundled_per_s"])
    yield row(f"{name}: leaves verified", many["verified_per_s"], 200_000)
    yield row(f"{name}: memory that closing {few['charges']:,} charges adds", few["close_peak_growth_kib"], unit=" KiB")
    yield row(f"{name}: memory that closing {many['charges']:,} charges adds", many["close_peak_growth_kib"], unit=" KiB")


def main():
    month, ledger, requests = sys.argv[1], sys.argv[2], int(sys.argv[3])
    print(f"{platform.machine()}, Linux {platform.release()}\n")
    print("| what | measured | target | measured / target |\n| --- | --- | --- | --- |")
    for name, database in (("SQLite", "sqlite"), ("PostgreSQL", "postgresql")):
        figures = run(ledger, database)
        if database == "sqlite":
            print(row("a hold inside a slice", figures["hold_ns"], 5_000, " ns", least=False))
            print(row("events rated, one core", figures["rated_per_s"], 1_000_000))
        print(row(f"beside {name}: synchronized writes of 4 KiB", figures["synchronized_writes_per_s"]))
        for line in ledger_rows(name, figures):
            print(line)
        few, many = (run(month, str(count), database) for count in (requests // 5, requests))
        for line in month_rows(name, few, many):
            print(line, flush=True)


if __name__ == "__main__":
    main()
