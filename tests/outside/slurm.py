"""Reads what `sacct -D -X -P` printed as demand, for tests/outside/estimate.py: (instant, capacity, in use, known) by pool.

Nothing of Sublet is used, and another way: every job is asked at every instant at which anything changed.
"""
import gzip
import re
from datetime import datetime, timezone
from zoneinfo import ZoneInfo

FREE_TEXT = {"jobname", "comment", "admincomment", "systemcomment", "submitline", "workdir", "extra", "constraints", "stdin", "stdout", "stderr"}


def instants(text, zone):
    """Both instants at which clocks in the zone showed it, earlier first; one in most cases."""
    if text in ("", "Unknown", "None"):
        return []
    if text.isdigit():
        return [int(text)]
    shown = datetime.fromisoformat(text)
    found = {int(shown.replace(tzinfo=zone, fold=fold).astimezone(timezone.utc).timestamp()) for fold in (0, 1)}
    return sorted(at for at in found if datetime.fromtimestamp(at, zone).replace(tzinfo=None) == shown)


def seconds(text):
    if not text:
        return None
    days, _, clock = text.rpartition("-")
    total = 0
    for part in clock.split(":"):
        total = total * 60 + int(float(part))
    return total + 86400 * int(days or 0)


def resources(text):
    return {name: int(number) for name, _, number in (part.partition("=") for part in text.split(",")) if number.isdigit()}


def units(row, unit, list_column, number_columns):
    """None where nothing is said."""
    found = resources(row.get(list_column, ""))
    if unit == "gpu":
        typed = [number for name, number in found.items() if name.startswith("gres/gpu:")]
        return max(found.get("gres/gpu", 0), sum(typed))
    if unit in found:
        return found[unit]
    return next((int(row[name]) for name in number_columns[unit] if row.get(name)), 0)


def nodes(text):
    names = set()
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text):
        grown = [""]
        for piece in re.findall(r"\[[^\]]*\]|[^\[]+", part):
            if piece[0] != "[":
                grown = [name + piece for name in grown]
                continue
            numbers = []
            for bounds in piece[1:-1].split(","):
                low, _, high = bounds.partition("-")
                numbers += [str(number).zfill(len(low)) for number in range(int(low), int(high or low) + 1)]
            grown = [name + number for name in grown for number in numbers]
        names |= set(grown)
    return names


def listed(text):
    """Tasks of what is left of an array: `1-9:2,20` of `12_[1-9:2,20%4]`."""
    found = set()
    for low, high, step in re.findall(r"(\d+)(?:-(\d+))?(?::(\d+))?", re.split(r"[\]%]", text)[0]):
        found |= set(range(int(low), int(high or low) + 1, int(step or 1)))
    return found


def rows_of(path):
    opened = gzip.open(path, "rt") if path.endswith(".gz") else open(path)
    with opened as lines:
        heading = next(lines).rstrip("\n")
        names = [name.strip().lower() for name in heading.split("|")]
        free = [place for place, name in enumerate(names) if name in FREE_TEXT]
        for line in lines:
            line = line.rstrip("\n")
            if line == heading:
                continue
            parts = line.split("|")
            surplus = len(parts) - len(names)
            if surplus:
                assert len(free) == 1 and surplus > 0, line
                parts[free[0] : free[0] + surplus + 1] = ["|".join(parts[free[0] : free[0] + surplus + 1])]
            yield dict(zip(names, parts))


def attempt(row, how, zone):
    eligible = instants(row.get("eligible", row.get("submit", "")), zone)
    ran = seconds(row.get("elapsedraw", row.get("elapsed", "")))
    pairs = [(start, end) for start in instants(row["start"], zone) or [None] for end in instants(row["end"], zone) or [None]]
    pairs = [(start, end) for start, end in pairs if start is None or end is None or start <= end]
    exact = [(start, end) for start, end in pairs if None not in (start, end, ran) and end - start == ran]
    pairs = exact or pairs
    if eligible:
        pairs = [(start, end) for start, end in pairs if start is None or eligible[0] <= start] or pairs
    start, end = pairs[0]
    late = [at for at in eligible if start is not None and at <= start]
    used = units(row, how["unit"], "alloctres", {"cpu": ("alloccpus", "ncpus"), "node": ("allocnodes", "nnodes")})
    submit = instants(row.get("submit", ""), zone)
    waits = max(late) if late else eligible[0] if eligible else None
    names = row.get("nodelist", "") if how["unit"] == "node" else ""
    return {
        # What is left of an array stays the same job.
        "who": (row.get("cluster", ""), re.sub(r"\[.*", "[", row.get("jobidraw", row.get("jobid")))),
        "shown": row.get("jobid", ""),
        "superseded": False,
        "happened": [at for at in (submit[0] if submit else None, start, end, start + ran if start is not None and end is None and ran is not None else None) if at is not None],
        "submit": submit[0] if submit else waits,
        "eligible": waits,
        "start": start,
        "end": end,
        "used": used,
        "pool": "" if how["pool_by"] == "none" else row[how["pool_by"]].split(",")[0],
        "nodes": nodes(names) if names != "None assigned" else set(),
    }


def attempts(path, how):
    zone = ZoneInfo(how["time_zone"])
    kept = []
    by_submission = {}
    for row in rows_of(path):
        if "." in row.get("jobidraw", row.get("jobid")) or row.get("state", "").startswith("REVOKED"):
            continue
        found = attempt(row, how, zone)
        held = by_submission.setdefault((found["who"], found["submit"]), [])
        same = [one for one in held if None in (one["start"], found["start"]) or one["start"] == found["start"]]
        if not same:
            held.append(found)
            kept.append(found)
        elif (found["end"] is not None, found["start"] is not None) >= (same[-1]["end"] is not None, same[-1]["start"] is not None):
            same[-1].update(found)
    by_job = {}
    for one in kept:
        by_job.setdefault(one["who"], []).append(one)
    for tries in by_job.values():
        tries.sort(key=lambda one: one["submit"])
        for one, after in zip(tries, tries[1:]):
            if one["end"] is None:
                one["end"], one["superseded"] = after["submit"], True
    return [one for one in kept if not waits_elsewhere(one, kept)]


def waits_elsewhere(one, kept):
    """Takes the tasks that rows of their own tell out of what is left of an array; whether none is left."""
    array, bracket, rest = one["shown"].partition("_[")
    if not bracket or one["start"] is not None:
        return False
    left = listed(rest)
    for other in kept:
        base, _, task = other["shown"].partition("_")
        if task.isdigit() and (other["who"][0], base, other["submit"]) == (one["who"][0], array, one["submit"]):
            left.discard(int(task))
    return listed(rest) and not left


def demand(path, how):
    """Steps by pool, and where they end."""
    kept = attempts(path, how)
    ends = [one["end"] for one in kept if one["end"] is not None and not one["superseded"]] or [one["start"] for one in kept if one["start"] is not None]
    begin = how["from_s"] if how["from_s"] is not None else min(ends)
    known = [one["eligible"] for one in kept if one["eligible"] is not None]
    happened = [at for one in kept for at in one["happened"]]
    until = how["until_s"] if how["until_s"] is not None else min([max(known)] + ([max(happened)] if happened else []))
    pools = {}
    for pool in {one["pool"] for one in kept}:
        jobs = [one for one in kept if one["pool"] == pool]
        marks = {begin} | {at for one in jobs for at in (one["eligible"], one["start"], one["end"]) if at is not None and begin < at < until}
        steps = []
        for at in sorted(marks):
            runs = [one for one in jobs if one["start"] is not None and one["start"] <= at and (one["end"] is None or at < one["end"])]
            runs = [one for one in runs if one["used"]]
            shared = set().union(*(one["nodes"] for one in runs))
            steps.append((at, sum(one["used"] for one in runs if not one["nodes"]) + len(shared)))
        most = max(in_use for _, in_use in steps)
        if most or pool in how["capacities"]:
            given = how["capacities"].get(pool, how["capacity"])
            pools[pool] = [(at, most if given is None else given, in_use, True) for at, in_use in steps]
    return pools, until
