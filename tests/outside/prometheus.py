"""What Prometheus answered to a range query as demand: instant by instant of the grid, without Sublet."""
import json


def documents(text):
    decoder, place = json.JSONDecoder(), 0
    while text[place:].strip():
        place += len(text[place:]) - len(text[place:].lstrip())
        found, place = decoder.raw_decode(text, place)
        yield found


def demand(path, how):
    """Steps (instant, capacity, in use, known) of each pool, and the end."""
    found = {}
    with open(path) as text:
        for document in documents(text.read()):
            for series in document["data"]["result"]:
                name = series["metric"]["series"]
                for at, units in series["values"]:
                    found.setdefault(series["metric"].get("pool", ""), {})[int(at), name] = int(float(units))
    instants = [at for samples in found.values() for at, _ in samples]
    step, first, last = how["step_seconds"], min(instants), max(instants)
    assert all((at - first) % step == 0 for at in instants), "the samples lie on a grid"
    pools = {}
    for pool, samples in found.items():
        began = min(at for at, _ in samples)
        steps, capacity = [], None
        for at in range(began, last + 1, step):
            known = (at, "capacity_gpus") in samples
            capacity = samples[at, "capacity_gpus"] if known else capacity
            steps.append((at, capacity or 0, samples.get((at, "in_use_gpus"), 0) if known else 0, known))
        pools[pool] = steps
    return pools, last + step
