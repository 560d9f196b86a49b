"""The tables of bench/capacity.sh: every policy on every file, whole and in halves, and made-up series."""
import csv
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time

HEAD = "| series | policy | sold | of bound | collisions ppm | evictions/day | h/eviction | broken n2m, n15m, n1h, n24h |"
COLUMNS = ["t_s", "capacity_gpus", "in_use_gpus", "queued_gpus", "valid"]


def estimate(binary, path, *words):
    command = [binary, "--json", "estimate", "--demand", path, *words]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def row(series, figures):
    broken = figures["broken_promises"]
    hours = figures["sold_hours_per_eviction"]
    cells = [
        series,
        figures["policy"],
        f"{figures['sold_share']:.3f}",
        f"{figures['value_share_of_bound']:.3f}",
        f"{figures['collision_ppm']:.1f}",
        f"{figures['evictions_per_day']:.0f}",
        "–" if hours is None else f"{hours:.1f}",
        ", ".join(str(broken[name]) for name in ("n2m", "n15m", "n1h", "n24h")),
    ]
    print("| " + " | ".join(cells) + " |", flush=True)


def write(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    return path


def halves(path, folder):
    with gzip.open(path, "rt") if path.endswith(".gz") else open(path) as file:
        rows = list(csv.DictReader(file))
    middle = (int(rows[0]["t_s"]) + int(rows[-1]["t_s"])) // 2
    for name, keep in (("first half", lambda at: at < middle), ("second half", lambda at: at >= middle)):
        part = [[line[column] for column in COLUMNS] for line in rows if keep(int(line["t_s"]))]
        yield name, write(os.path.join(folder, name.replace(" ", "-") + ".csv"), part)


def made_up(folder):
    """Two weeks each, by a small generator of its own, so that they are the same on every machine."""
    state = [12345]

    def draw(limit):
        state[0] = (state[0] * 6364136223846793005 + 1442695040888963407) % 2**64
        return (state[0] >> 33) % limit

    minutes = range(14 * 1440)
    diurnal = [60 + 100 * abs(minute % 1440 - 720) // 720 + draw(7) for minute in minutes]
    bursts, until, height = [], 0, 0
    for minute in minutes:
        if minute >= until and draw(120) == 0:
            until, height = minute + 5 + draw(60), 20 + draw(100)
        bursts.append(60 + (height if minute < until else 0) + draw(5))
    tenfold = [12 + draw(4) + (120 if minute > 10 * 1440 and minute % 1440 > 600 else 0) for minute in minutes]
    for name, series in (("always full", [200] * len(minutes)), ("diurnal", diurnal), ("bursty", bursts), ("tenfold from day 10", tenfold)):
        rows = [[60 * minute, 200, min(200, used), 0, 1] for minute, used in zip(minutes, series)]
        yield name, write(os.path.join(folder, name.replace(" ", "-") + ".csv"), rows)


def main(binary, *paths):
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    print(f"commit {commit}\n\n{HEAD}\n|{' --- |' * 8}")
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            name = os.path.basename(path).removeprefix("internal_demand_").split(".")[0]
            for figures in estimate(binary, path, "--policy", "all"):
                row(name, figures)
            for seconds in ("30", "120"):
                row(f"{name}, cleaned for {seconds} s", estimate(binary, path, "--reclaim-seconds", seconds)[0])
            if name.endswith("_pools"):
                row(f"{name}, merged", estimate(binary, path, "--merge-pools")[0])
            else:
                for half, part in halves(path, folder):
                    row(f"{name}, {half}", estimate(binary, part)[0])
            for figures in estimate(binary, path, "--policy", "parts")[1:]:
                row(name, figures)
            score(binary, path, folder)
        for name, path in made_up(folder):
            row(name, estimate(binary, path)[0])
        year(binary, folder)


def score(binary, path, folder):
    schedule, figures = os.path.join(folder, "schedule"), os.path.join(folder, "figures")
    with open(figures, "w") as file:
        subprocess.run([binary, "--json", "estimate", "--demand", path, "--schedule", schedule], check=True, stdout=file)
    scorer = os.path.join("tests", "outside", "estimate.py")
    said = subprocess.run([sys.executable, scorer, path, schedule, figures], check=True, capture_output=True, text=True)
    print(said.stdout.strip(), file=sys.stderr)


def year(binary, folder):
    minutes = range(365 * 1440)
    rows = ([60 * m, 1000, 400 + 300 * abs(m % 1440 - 720) // 720 + m * 7919 % 41, 0, 1] for m in minutes)
    path = write(os.path.join(folder, "year.csv"), rows)
    began = time.monotonic()
    estimate(binary, path)
    print(f"\na year of minutes of a pool of 1,000: {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
