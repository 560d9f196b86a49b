#!/usr/bin/env python3
"""Scores a schedule of `sublet estimate` again, from the demand file alone, with exact fractions.

    sublet --json estimate --demand FILE --policy NAME --schedule SCHEDULE > FIGURES
    python3 tests/outside/estimate.py FILE SCHEDULE FIGURES [JOBS]

FILE is rows of demand, what `sacct -D -X -P` printed or what Prometheus answered; these are read again, too
(`slurm.py`, `prometheus.py`).
Nothing of Sublet is used: idle time, collisions, evictions, promises, compensation and revenue follow
from what ran when, and the bound from its definition, by a slow and different way. JOBS is the file of
--jobs: who came, started, waited, was done or interrupted, and that all that ran is useful, lost or going
on; which of the three it is follows from no schedule. Exits with 1 and
names the first figure that differs by more than the sixth decimal.
"""
import bisect
import csv
import gzip
import json
import sys
from fractions import Fraction

import prometheus
import slurm

CLASSES = ["n0", "n2m", "n15m", "n1h", "n24h", "firm"]
TERMS = [0, 120, 900, 3600, 86400, 7 * 86400]
HOUR = 3600


def read_demand(path):
    opened = gzip.open(path, "rt") if path.endswith(".gz") else open(path)
    pools = {}
    with opened as lines:
        for row in csv.DictReader(lines):
            step = (int(row["t_s"]), int(row["capacity_gpus"]), int(row["in_use_gpus"]), row.get("valid", "1") in ("1", "true"))
            pools.setdefault(row.get("pool", ""), []).append(step)
    return pools


def with_outage(steps, start, until, end):
    """The steps with nothing known between two instants."""
    marks = sorted({step[0] for step in steps} | {at for at in (start, until) if steps[0][0] < at < end})
    places = [max(place for place, step in enumerate(steps) if step[0] <= at) for at in marks]
    return [(at, *steps[place][1:3], steps[place][3] and not start <= at < until) for at, place in zip(marks, places)]


def idle_of(step):
    return max(0, step[1] - step[2]) if step[3] else 0


def opening(run, term):
    """Unit-seconds of levels: each level's stretches of at least the term, added up."""
    total, top = 0, max(idle for _, _, idle in run)
    for level in range(1, top + 1):
        began = None
        for start, end, idle in run + [(run[-1][1], run[-1][1], -1)]:
            if idle >= level:
                began = start if began is None else began
            elif began is not None:
                if start - began >= max(term, 1):
                    total += start - began
                began = None
    return total


def bound_of(steps, end, prices):
    """The bound in seconds of list price, millionths."""
    runs, run = [], []
    for place, step in enumerate(steps):
        until = steps[place + 1][0] if place + 1 < len(steps) else end
        if step[3]:
            run.append((step[0], until, idle_of(step)))
        elif run:
            runs.append(run)
            run = []
    runs += [run] if run else []
    value = 0
    for run in runs:
        below = 0
        for price, term in zip(prices, TERMS):
            value += opening(run, term) * (price - below)
            below = price
    return value


def owed(name, price, age, missing):
    if name == "n2m":
        return price * min(age, HOUR)
    if name == "n15m":
        return 2 * price * (-age % HOUR)
    if name in ("n1h", "n24h"):
        return Fraction(price * missing * 5, 4)
    raise SystemExit(f"a broken promise of {name}: that class cannot be broken")


class Pool:
    """What happened in one pool: steps of demand, steps of what ran, and ends."""

    def __init__(self, steps, head):
        self.steps, self.head, self.rows, self.busy = steps, head, [], []

    def add(self, row):
        self.rows.append((row["t_s"], row["running"]))
        for name, units, began, promised, at, kind in row.get("ended", []):
            quick = name == "n0" or kind == "broken"
            free = at + self.head["reclaim_seconds"] + (self.head["kill_seconds"] if quick else 0)
            if free > at:
                self.busy.append((at, free, units))
            assert kind in ("evicted", "broken", "over") and began <= at, (name, kind)
            assert (at < promised) == (kind == "broken") or name == "n0", (name, at, promised, kind)
            assert name != "firm" or kind == "over", "a firm lease was ended by the owner"

    def tally(self, end):
        outages = [(s[0], self.steps[i + 1][0] if i + 1 < len(self.steps) else end) for i, s in enumerate(self.steps) if not s[3]]
        starts = [start for start, _ in outages]
        # An outage takes what was being killed or cleaned with it.
        cut = []
        for at, free, units in self.busy:
            place = bisect.bisect_right(starts, at)
            cut.append((at, min(free, starts[place]) if place < len(starts) else free, units))
        change = {}
        for at, free, units in cut:
            change[at] = change.get(at, 0) + units
            change[free] = change.get(free, 0) - units
        instants = sorted({s[0] for s in self.steps} | {at for at, _ in self.rows} | set(change) | {end})
        # What is cleaned when the history ends is cleaned behind it.
        instants = [at for at in instants if at <= end]
        sums = dict(valid=0, idle=0, internal=0, sold=0, collision=0, episodes=0, revenue=0)
        step = row = -1
        returning, collides = 0, False
        for now, after in zip(instants, instants[1:]):
            while step + 1 < len(self.steps) and self.steps[step + 1][0] <= now:
                step += 1
            while row + 1 < len(self.rows) and self.rows[row + 1][0] <= now:
                row += 1
            returning += change.get(now, 0)
            demand = self.steps[step]
            running = self.rows[row][1] if row >= 0 else [0] * 6
            if not demand[3]:
                assert sum(running) == 0, f"something is sold in the outage at {now}"
                collides = False
                continue
            seconds, total = after - now, sum(running)
            short = min(max(0, total + returning - idle_of(demand)), demand[2])
            sums["valid"] += seconds
            sums["idle"] += seconds * idle_of(demand)
            sums["internal"] += seconds * demand[2]
            sums["sold"] += seconds * min(total, idle_of(demand))
            sums["collision"] += seconds * short
            sums["episodes"] += short > 0 and not collides
            sums["revenue"] += seconds * sum(units * price for units, price in zip(running, self.head["prices_ppm"]))
            collides = short > 0
        return sums


def main(demand_path, schedule_path, figures_path, jobs_path=None):
    with open(schedule_path) as lines:
        head = json.loads(next(lines))
        rows = [json.loads(line) for line in lines]
    if "accounting" in head:
        demand, end = slurm.demand(demand_path, head["accounting"])
        assert end == head["end_s"], f"the accounting ends at {end}, the schedule at {head['end_s']}"
    elif "recording" in head:
        demand, end = prometheus.demand(demand_path, head["recording"])
        assert end == head["end_s"], f"the recording ends at {end}, the schedule at {head['end_s']}"
    else:
        demand = read_demand(demand_path)
    for start, until in head["outages"]:
        demand = {name: with_outage(steps, start, until, head["end_s"]) for name, steps in demand.items()}
    if head["merged"]:
        raise SystemExit("this scorer reads schedules of separate pools; leave --merge-pools out")
    pools = {name: Pool(steps, head) for name, steps in demand.items()}
    evictions, broken, compensation = 0, dict.fromkeys(CLASSES, 0), Fraction(0)
    for row in rows:
        pools[row["pool"]].add(row)
        for name, units, began, promised, at, kind in row.get("ended", []):
            evictions += units if kind != "over" else 0
            if kind == "broken":
                broken[name] += units
                price = head["prices_ppm"][CLASSES.index(name)]
                compensation += units * int(owed(name, price, at - began, promised - at))
    total = dict(valid=0, idle=0, internal=0, sold=0, collision=0, episodes=0, revenue=0)
    bound = 0
    for pool in pools.values():
        for name, value in pool.tally(head["end_s"]).items():
            total[name] = max(total[name], value) if name == "valid" else total[name] + value
        bound += bound_of(pool.steps, head["end_s"], head["prices_ppm"])
    compare(figures_path, head, total, bound, evictions, broken, compensation)
    if jobs_path:
        ((steps, lines),) = [(pool.steps, [row for row in rows if row["pool"] == name]) for name, pool in pools.items()]
        compare_jobs(found_in(figures_path, head)["jobs"], read_jobs(jobs_path, steps[0][0], head["end_s"]), steps, lines, head["end_s"])


def found_in(figures_path, head):
    with open(figures_path) as text:
        return next(row for row in json.load(text) if row["policy"] == head["policy"])


def read_jobs(path, start, end):
    """(arrival, units, duration) of those that come within the history, in order."""
    with open(path) as lines:
        found = [(int(row["arrival_s"]), -(-Fraction(row["gpus"]) // 1), max(1, int(row["duration_s"]))) for row in csv.DictReader(lines)]
    found.sort(key=lambda job: job[0])
    shift = start if found[0][0] == 0 else 0
    return [(at + shift, units, lasts) for at, units, lasts in found if start <= at + shift < end]


def compare_jobs(given, jobs, steps, rows, end):
    def check(name, value, tolerance=Fraction(1, 10**6)):
        if abs(Fraction(str(given[name])) - value) > tolerance:
            raise SystemExit(f"jobs.{name} is {given[name]} and should be {float(value)}")

    def is_down(at):
        return not steps[bisect.bisect_right([step[0] for step in steps], at) - 1][3]

    waits, ran, finished, interrupted = {}, 0, 0, 0
    running = count = before = 0
    for row in rows + [{"t_s": end, "running": None}]:
        now = row["t_s"]
        ran += running * (now - before)
        if row["running"] is None:
            break
        ended, started = row.get("ended", []), row.get("started", [])
        for job, name, units in started:
            assert units == jobs[job][1] and jobs[job][0] <= now and not is_down(now), f"the job {job} cannot start at {now}"
            assert name in CLASSES[:5] and TERMS[CLASSES.index(name)] <= jobs[job][2], f"the job {job} is shorter than {name}"
            waits.setdefault(job, now - jobs[job][0])
        finished += sum(1 for one in ended if one[5] == "over")
        interrupted += sum(1 for one in ended if one[5] != "over")
        running += sum(units for _, _, units in started) - sum(one[1] for one in ended)
        count += len(started) - len(ended)
        if is_down(now):
            interrupted += count
            running = count = 0
        if running != sum(row["running"]) or count < 0:
            raise SystemExit(f"at {now} {sum(row['running'])} units run, and by starts and ends {running}")
        before = now
    # Who comes behind the last decision is not there.
    last = max(steps[-1][0], (end - 1) // 60 * 60)
    arrived = [job for job in jobs if job[0] <= last]
    waited = sorted(waits.values())
    check("arrived", len(arrived))
    check("finished", finished)
    check("interrupted", interrupted)
    check("running", count)
    check("waiting", len(arrived) - finished - count - given["gone"])
    check("asked_hours", Fraction(sum(units * lasts for _, units, lasts in arrived), HOUR))
    useful, lost, going = (Fraction(str(given[name])) for name in ("useful_hours", "lost_hours", "going_on_hours"))
    check("useful_hours", Fraction(ran, HOUR) - lost - going, Fraction(3, 10**6))
    check("goodput", useful / (useful + lost) if useful + lost else 0, Fraction(1, 10**4))
    if not 0 <= Fraction(str(given["goodput"])) <= 1 or useful * HOUR > sum(units * lasts for _, units, lasts in arrived) + 1:
        raise SystemExit(f"more is useful than the jobs asked for: {given}")
    check("mean_wait_seconds", Fraction(sum(waited), len(waited)) if waited else 0)
    for name, share in (("median_wait_seconds", Fraction(1, 2)), ("p95_wait_seconds", Fraction(19, 20))):
        check(name, waited[max(0, -(-len(waited) * share // 1) - 1)] if waited else 0)
    print(f"with those of {len(arrived)} jobs")


def compare(figures_path, head, total, bound, evictions, broken, compensation):
    def share(part, whole):
        return Fraction(part, whole) if whole else Fraction(0)

    days = Fraction(total["valid"], 86400)
    price_hour = HOUR * 10**6
    expected = {
        "sold_share": share(total["sold"], total["idle"]),
        "value_share_of_bound": share(max(0, total["revenue"] - compensation), bound),
        "collision_ppm": share(total["collision"] * 10**6, total["internal"]),
        "collision_episodes_per_day": share(total["episodes"], days),
        "evictions_per_day": share(evictions, days),
        "sold_hours_per_eviction": Fraction(total["sold"], evictions * HOUR) if evictions else None,
        "compensation": compensation / price_hour,
        "revenue": Fraction(total["revenue"], price_hour),
        "idle_hours": Fraction(total["idle"], HOUR),
        "bound_hours": Fraction(bound, price_hour),
    }
    found = found_in(figures_path, head)
    for name, value in expected.items():
        given = found[name]
        if (given is None) != (value is None) or (value is not None and abs(Fraction(str(given)) - value) > Fraction(1, 10**6)):
            raise SystemExit(f"{name} is {given} and should be {value if value is None else float(value)}")
    if found["broken_promises"] != broken:
        raise SystemExit(f"broken_promises are {found['broken_promises']} and should be {broken}")
    print(f"{head['policy']}: {len(expected) + 1} figures are the schedule's")


if __name__ == "__main__":
    main(*sys.argv[1:])
