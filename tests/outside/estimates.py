"""Replays histories with the built program and has each figure found again by tests/outside/estimate.py.

The accounting of Slurm in the docs, read in each way, and one of many jobs that is made here from a seed: local
times of a zone whose clocks go back, requeued jobs, arrays, bars in names, rows that come twice. With and
without the jobs of customers. Needs SUBLET_BINARY.
"""
import os
import random
import subprocess
import sys
import tempfile
from datetime import datetime
from zoneinfo import ZoneInfo

HERE = os.path.dirname(os.path.abspath(__file__))
EXAMPLE = os.path.join(HERE, "..", "..", "crates", "sublet-capacity", "src", "estimate", "example.sacct")
POOLS = {"partition": ["long", "short"], "account": ["team"]}
ZONE = ZoneInfo("Europe/Berlin")
START = int(datetime(2025, 10, 24, tzinfo=ZONE).timestamp())
HEADING = "JobID|JobIDRaw|JobName|Partition|Account|State|Submit|Eligible|Start|End|ElapsedRaw|AllocTRES|ReqTRES|NNodes|NodeList"


def shown(at):
    return "Unknown" if at is None else datetime.fromtimestamp(at, ZONE).strftime("%Y-%m-%dT%H:%M:%S")


def row(number, draw, attempts, now):
    """The rows of a job: each attempt, of which any but the last was requeued."""
    gpus = draw.choice([0, 1, 1, 2, 4, 8])
    typed = draw.random() < 0.5
    tres = f"cpu={8 * max(1, gpus)}" + (f",gres/gpu:a100={gpus}" if typed and gpus else "")
    tres += f",gres/gpu={gpus}" if gpus and (not typed or draw.random() < 0.5) else ""
    tres += ",mem=64G,node=1"
    name, partition = draw.choice(["train", "a|b", "eval"]), draw.choice(["long", "short"])
    node = f"gpu[{draw.randrange(1, 9):02}-{draw.randrange(9, 12):02}]" if gpus == 8 else f"gpu{draw.randrange(1, 12):02}"
    rows, submit = [], START + draw.randrange(4 * 86400)
    for place in range(attempts):
        eligible = submit + draw.choice([0, 0, 60])
        start = eligible + draw.choice([0, 30, 600, 7000])
        end = start + draw.randrange(60, 40000)
        start, end = (None if start > now else start), (None if end > now else end)
        state = "PENDING" if start is None else "RUNNING" if end is None else "COMPLETED"
        ran = 0 if start is None else (end or now) - start
        used = "" if start is None else tres
        where = "None assigned" if start is None else node
        times = "|".join(shown(at) for at in (submit, eligible, start, end))
        rows.append((submit, f"{number}|{number}|{name}|{partition}|team|{state}|{times}|{ran}|{used}|{tres}|1|{where}"))
        if end is None:
            break
        submit = end + 5
    return rows


def odd(now):
    """An attempt without an end, whose successor was submitted before any End; a job of next month; an array told twice."""
    def text(number, raw, times, ran, used):
        return f"{number}|{raw}|odd|long|team|x|{'|'.join(shown(at) for at in times)}|{ran}|{used}|gres/gpu=2|1|None assigned"

    yield START, text("900", "900", (START, START, START, None), 0, "gres/gpu=2")
    yield START + 20, text("900", "900", (START + 20, START + 20, START + 600, START + 90000), 89400, "gres/gpu=2")
    yield now, text("901", "901", (now, now + 30 * 86400, None, None), 0, "")
    yield now - 900, text("902_[1-4]", "902", (now - 900, now - 900, None, None), 0, "")
    for task in (1, 2):
        yield now - 900, text(f"902_{task}", str(902 + task), (now - 900, now - 900, now - 60, None), 60, "gres/gpu=2")


def made(path, draw):
    now = START + 4 * 86400
    rows = [one for number in range(1, 400) for one in row(number, draw, draw.choice([1, 1, 1, 3]), now)]
    rows += odd(now)
    rows = [text for submit, text in sorted(rows) if submit <= now]
    rows += draw.sample(rows, 20)
    with open(path, "w") as file:
        file.write("\n".join([HEADING] + rows[:200] + [HEADING] + rows[200:]) + "\n")


def check(name, folder, words):
    binary, demand = os.environ["SUBLET_BINARY"], words[0]
    schedule, figures = os.path.join(folder, "schedule.jsonl"), os.path.join(folder, "figures.json")
    with open(figures, "w") as file:
        subprocess.run([binary, "--json", "estimate", "--demand", *words, "--schedule", schedule], check=True, stdout=file)
    scorer = os.path.join(HERE, "estimate.py")
    jobs = [words[words.index("--jobs") + 1]] if "--jobs" in words else []
    scored = subprocess.run([sys.executable, scorer, demand, schedule, figures, *jobs], capture_output=True, text=True)
    print(f"ok {name}: {scored.stdout.strip().replace(chr(10), ', ')}" if scored.returncode == 0 else f"FAIL {name}: {scored.stdout}{scored.stderr}", flush=True)


def main():
    draw = random.Random(20260302)
    with tempfile.TemporaryDirectory() as folder:
        many, jobs = os.path.join(folder, "many.sacct"), os.path.join(folder, "jobs.csv")
        made(many, draw)
        with open(jobs, "w") as file:
            arrivals = sorted(draw.randrange(3 * 86400) for _ in range(300))
            wanted = [f"{at - arrivals[0]},{draw.choice([1, 1, 2, 4])},{draw.randrange(30, 20000)},7200" for at in arrivals]
            file.write("\n".join(["arrival_s,gpus,duration_s,patience_s"] + wanted) + "\n")
        for pool_by in ("partition", "account", "none"):
            for unit in ("gpu", "cpu", "node"):
                # What is not in two pools may be guessed.
                large = [] if pool_by == "none" else [f"--capacity={name}=400" for name in POOLS[pool_by]]
                example = ["--capacity=vision=20", "--capacity=speech=20"] if pool_by == "account" else []
                for name, path, more in (("the example", EXAMPLE, example), ("many jobs", many, ["--time-zone", "Europe/Berlin", *large])):
                    how = ["--unit", unit, "--pool-by", pool_by, "--policy", "static-10", "--reclaim-seconds", "30"]
                    check(f"{name}, {unit}, {pool_by}", folder, [path, *more, *how])
        berlin = [many, "--time-zone", "Europe/Berlin", "--pool-by", "none", "--capacity", "160"]
        for policy in ("default", "static-5", "peak-1h", "default-without-breaking"):
            bought = ["--jobs", jobs, "--checkpoint-seconds", "600", "--prices", "n0=.1,n2m=.3", "--kill-seconds", "7"]
            check(f"jobs of customers, {policy}", folder, [*berlin, *bought, "--policy", policy])
        check("what sacct was asked for", folder, [*berlin, "--from", "2025-10-24", "--until", "2025-10-28T00:00:00"])
        down = ["--outage", "2025-10-25T03:20:10/2025-10-25T09:00:00", "--outage", "2025-10-26T02:30:00/2025-10-26T02:45:00"]
        bought = ["--jobs", jobs, "--checkpoint-seconds", "900"]
        for policy in ("default", "static-5"):
            check(f"jobs of customers and outages, {policy}", folder, [*berlin, *bought, *down, "--policy", policy])
        check("outages that the owner names", folder, [*berlin, *down, "--policy", "static-5", "--reclaim-seconds", "600"])


if __name__ == "__main__":
    main()
