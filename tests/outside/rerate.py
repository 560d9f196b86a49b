"""Adds an invoice up again from its bundle, with exact fractions and nothing of Sublet's own.

Usage: rerate.py BUNDLE... Prints a line for each, and ends with 0 if every amount is right to the last unit. Written
from docs/operation/proof.md, prices.md and contracts.md; zones are those of Python's zoneinfo.
"""

import datetime
import hashlib
import json
import sys
import zoneinfo
from fractions import Fraction

NANO = 10**9
UNITS = {"1M tokens": 10**6, "request": 1, "device-hour": 3_600_000, "start": 1, "project-month": 1, "fee": 1,
         "GiB-month": 2**30 * 730, "GiB": 2**30}
DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
UTC = datetime.timezone.utc


class Wrong(Exception):
    """An invoice does not say what its charges say."""


def require(truth, what):
    if not truth:
        raise Wrong(what)


def nanos(text):
    """An amount in units of 10**-9."""
    amount = Fraction(text) * NANO
    require(amount.denominator == 1, f"{text} is finer than 10**-9")
    return amount.numerator


def half_even(exact):
    """The nearest integer; of two that are as near, the even one. Python rounds fractions so."""
    return round(exact)


def cost(model, unit, quantity):
    """What a line's whole quantity costs, exactly."""
    kind = model["type"]
    if kind == "per_unit":
        return Fraction(nanos(model["price"]) * quantity, UNITS[unit])
    if kind == "graduated":
        total, begin = Fraction(0), 0
        for tier in model["tiers"]:
            end = min(quantity, tier.get("up_to", quantity))
            if end > begin:
                total += Fraction(nanos(tier["price"]) * (end - begin), UNITS[unit])
                begin = end
        require(begin == quantity, "a quantity lies beyond all tiers")
        return total
    if kind == "volume":
        tier = next(tier for tier in model["tiers"] if quantity <= tier.get("up_to", quantity))
        return Fraction(nanos(tier["price"]) * quantity, UNITS[unit])
    if kind == "package":
        return Fraction(nanos(model["price"]) * -(-quantity // model["size"]))
    if kind == "minimum":
        inner = cost(model["of"], unit, quantity)
        return max(inner, Fraction(nanos(model["least"]))) if quantity else inner
    raise Wrong(f"there is no price model '{kind}'")


def minutes(text):
    hours, rest = text.split(":")
    return int(hours) * 60 + int(rest)


def thousandths(text):
    level = Fraction(text) * 1000
    require(level.denominator == 1 and level > 0, f"{text} is no level")
    return level.numerator


def level_at(index, micros):
    """The level of an index at an instant: of the last point before it, and of the very first before all."""
    begun = [point for point in index["points"] if point["from_micros"] <= micros]
    require(begun or "previous" not in index, f"the points of {index['index']} begin too late")
    return thousandths((begun[-1] if begun else index["points"][0])["level"])


def last_hash(index):
    """The hash of the last point, over all before it; points are in order and were published ahead."""
    found, last = index.get("previous"), None
    for point in index["points"]:
        if last:
            require(point["from_micros"] >= last["from_micros"] + 300 * 10**6, "points are too close")
            require(point["from_micros"] >= point["published_at_micros"] + index["lead_ms"] * 1000, "a point is back-dated")
        link = {**point, "index": index["index"], "lead_ms": index["lead_ms"], **({"previous": found} if found else {})}
        found = hashlib.sha256(json.dumps(link, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
        last = point
    return found


def band_at(entry, micros, indexes):
    """The name of the band that an instant is in; none outside of all."""
    market = entry.get("market")
    if market:
        level = level_at(indexes[market["index"]], micros)
        return f"level-{min(max(level, thousandths(market['floor'])), thousandths(market['ceiling']))}"
    times = entry.get("time_of_use")
    if times is None:
        return None
    seconds, rest = divmod(micros, 10**6)
    there = datetime.datetime.fromtimestamp(seconds, UTC).astimezone(zoneinfo.ZoneInfo(times["zone"]))
    minute = there.weekday() * 1440 + there.hour * 60 + there.minute
    for band in times["bands"]:
        for window in band["windows"]:
            begin, end = minutes(window["from"]), minutes(window["until"])
            end += 1440 if end <= begin else 0
            for day in window["days"]:
                first = DAYS.index(day) * 1440 + begin
                last = first + end - begin
                if first <= minute < last or first <= minute + 7 * 1440 < last:
                    return band["name"]
    return None


def model_of(entry, band):
    if "market" in entry:
        level = int(band.removeprefix("level-"))
        made = changed(entry["model"], lambda amount: half_even(Fraction(amount * level, 1000)))
        return written(made)
    if band is None:
        return entry["model"]
    return next(found["model"] for found in entry["time_of_use"]["bands"] if found["name"] == band)


def month_of(micros, zone):
    there = datetime.datetime.fromtimestamp(micros // 10**6, UTC).astimezone(zoneinfo.ZoneInfo(zone))
    return f"{there.year:04}-{there.month:02}"


def by_sku(price_list):
    return {entry["sku"]: entry for entry in price_list["entries"]}


def models_of(entry):
    if "market" in entry:
        return [model_of(entry, f"level-{thousandths(entry['market'][bound])}") for bound in ("floor", "ceiling")]
    return [entry["model"]] + [band["model"] for band in entry.get("time_of_use", {"bands": []})["bands"]]


def changed(value, change):
    """A price or a part of it with every amount changed."""
    if isinstance(value, list):
        return [changed(item, change) for item in value]
    if isinstance(value, dict):
        return {name: change(nanos(item)) if name in ("price", "least") else changed(item, change) for name, item in value.items()}
    return value


def written(value):
    """The same with amounts as they are written."""
    if isinstance(value, list):
        return [written(item) for item in value]
    if isinstance(value, dict):
        amounts = ("price", "least")
        return {name: f"{item}e-9" if name in amounts and isinstance(item, int) else written(item) for name, item in value.items()}
    return value


def plain(value):
    """The same with integers for amounts."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        amounts = ("price", "least")
        return {name: nanos(item) if name in amounts and isinstance(item, str) else plain(item) for name, item in value.items()}
    return value


def tiers_of(model):
    return [{"price": model["price"]}] if model["type"] == "per_unit" else model["tiers"]


def no_dearer(new, old):
    """Whether a line of any quantity is known to cost no more by one model than by the other."""
    kinds = new["type"], old["type"]
    if kinds == ("minimum", "minimum"):
        return nanos(new["least"]) <= nanos(old["least"]) and no_dearer(new["of"], old["of"])
    if old["type"] == "minimum":
        return no_dearer(new, old["of"])
    if new["type"] == "minimum":
        return nanos(new["least"]) == 0 and no_dearer(new["of"], old)
    if kinds == ("package", "package"):
        return nanos(new["price"]) == 0 or (nanos(new["price"]) <= nanos(old["price"]) and new["size"] >= old["size"])
    if "package" in kinds:
        amounts = []
        changed(new, amounts.append)
        return not any(amounts)
    bounds = [tier["up_to"] for model in (new, old) for tier in tiers_of(model) if "up_to" in tier]
    places = [1] + bounds + [bound + 1 for bound in bounds]
    if any(cost(new, "1M tokens", place) > cost(old, "1M tokens", place) for place in places):
        return False
    return nanos(tiers_of(new)[-1]["price"]) <= nanos(tiers_of(old)[-1]["price"])


def lesser(new, kept):
    """The lesser of a public price and a protected one, of the same thing."""
    markets = new.get("market"), kept.get("market")
    if markets[0] and markets[0] == markets[1]:
        bare = lambda entry: {name: value for name, value in entry.items() if name != "market"}
        return new if whole(bare(new), bare(kept)) == bare(new) else kept
    if markets != (None, None):
        return whole(new, kept)
    shape = lambda entry: [(band["name"], band["windows"]) for band in entry["time_of_use"]["bands"]]
    times = new.get("time_of_use"), kept.get("time_of_use")
    if times != (None, None) and (None in times or times[0]["zone"] != times[1]["zone"] or shape(new) != shape(kept)):
        return whole(new, kept)
    pick = lambda one, other: one if no_dearer(one, other) else other
    made = {**new, "model": pick(new["model"], kept["model"])}
    if times[0]:
        pairs = zip(times[0]["bands"], times[1]["bands"])
        made["time_of_use"] = {**times[0], "bands": [{**one, "model": pick(one["model"], other["model"])} for one, other in pairs]}
    return made


def whole(new, kept):
    """The same where the bands are others: the dearest unit of the new one against the least of the other."""
    amounts = []
    changed(models_of(new), amounts.append)
    if not any(amounts):
        return new
    inner = lambda model: inner(model["of"]) if model["type"] == "minimum" else model
    if any(model["type"] in ("package", "minimum") for model in models_of(new)):
        return kept
    if any(inner(model)["type"] == "package" for model in models_of(kept)):
        return kept
    units = lambda models: [nanos(tier["price"]) for model in models for tier in tiers_of(inner(model))]
    return new if max(units(models_of(new))) <= min(units(models_of(kept))) else kept


def parts_of(sku):
    """Site and isolation of device time, each none if it is not named, then its notice and kind."""
    _, *rest = sku.split("/")
    site = rest.pop(0) if rest[0].startswith("site_") else None
    isolation = rest.pop(0) if rest[0] in ("process", "sandbox") else None
    return site, isolation, rest[0], "/".join(rest[1:])


def device_name(site, isolation, notice, kind):
    return "/".join(part for part in ("device", site, isolation, notice, kind) if part)


def common(one, other):
    """What both names are of; none if nothing is."""
    if not (one.startswith("device/") and other.startswith("device/")):
        return one if one == other else None
    made = []
    for mine, theirs in zip(parts_of(one), parts_of(other)):
        if mine and theirs and mine != theirs:
            return None
        made.append(mine or theirs)
    return device_name(*made)


def covering(sku):
    """A name and all that cover it, what says most first."""
    if not sku.startswith("device/"):
        return [sku]
    site, isolation, notice, kind = parts_of(sku)
    pairs = [(site, isolation), (site, None), (None, isolation), (None, None)]
    return list(dict.fromkeys(device_name(*pair, notice, kind) for pair in pairs))


def resolve(prices, sku):
    """The price of what is used: the one that says most of its place."""
    return next((prices[name] for name in covering(sku) if name in prices), None)


def said(sku):
    """How much a name says of a place."""
    return sum(part is not None for part in parts_of(sku)[:2]) if sku.startswith("device/") else 0


def own_names(sold, protected, terms):
    """What has a price of its own by contract."""
    named = [fixed["sku"] for fixed in terms.get("fixed", [])] + list(protected)
    named += [discount["on"]["sku"] for discount in terms.get("discounts", []) if "sku" in discount["on"]]
    names = set(sold)
    for name in named:
        if name.startswith("device/"):
            names |= {common(name, other) for other in sold} - {None}
    devices = {name: parts_of(name) for name in names if name.startswith("device/")}
    at_sites = [parts for parts in devices.values() if parts[0] and not parts[1]]
    apart = [parts for parts in devices.values() if parts[1] and not parts[0]]
    names |= {device_name(one[0], *other[1:]) for one in at_sites for other in apart if one[2:] == other[2:]}
    fixed = {entry["sku"]: entry for entry in terms.get("fixed", [])}
    own = {name for name in names if is_apart(name, names, (fixed, protected, terms.get("discounts", [])))}
    for sku, entry in fixed.items():
        lines = [name for name in own if sku.startswith("device/") and resolve(fixed, name) == entry]
        require(is_proportional(entry) or len(lines) < 2, f"the fixed price of {sku} begins anew on each of {sorted(lines)}")
    return own


def is_proportional(entry):
    """Whether twice as much always costs twice as much, on however many lines."""
    return all(model["type"] == "per_unit" for model in models_of(entry))


def line_of(name, fixed, protected, discounts):
    """The name on whose line the use of a name belongs, by a fixed price or a protected one by quantity."""
    found = resolve(fixed, name)
    if found is not None:
        return found["sku"]
    kept = resolve(protected, name)
    if kept is None or is_proportional(kept) or off_ppm(discounts, kept["sku"]) != off_ppm(discounts, name):
        return None
    return kept["sku"]


def is_apart(name, names, agreed):
    """Whether a name has a line beside that of a price which covers it."""
    line = line_of(name, *agreed)
    if line in (None, name) or line not in names:
        return True
    others = [other for other in covering(name) if other != name and other in names and common(other, line) not in (other, line)]
    return any(is_apart(other, names, agreed) for other in others)


def off_ppm(discounts, sku):
    """The discount that names a thing most exactly."""
    first, *rest = sku.split("/")
    if first == "tokens":
        if rest[0] in ("flex", "priority"):
            rest = rest[1:]
        names = {"family": "model_tokens", "model": "/".join(rest[1:])}
    elif first == "requests":
        names = {"family": "model_requests", "model": "/".join(rest[1:])}
    elif first == "starts":
        names = {"family": "job_starts", "device": "/".join(rest)}
    elif first == "project":
        names = {"family": "project_fees"}
    elif first == "fee":
        names = {"family": "one_time_fees"}
    elif first in ("storage", "egress"):
        names = {"family": f"file_{first}"}
    else:
        _, _, notice, kind = parts_of(sku)
        names = {"family": "device_time", "notice": notice, "device": kind}
    best, found = -1, 0
    for discount in discounts:
        (kind, name), = discount["on"].items()
        rank = 2 + said(name) if kind == "sku" else {"family": 0}.get(kind, 1)
        holds = name in covering(sku) if kind == "sku" else name == names.get(kind)
        if holds and rank > best:
            best, found = rank, discount["off_ppm"]
    return found


def own_entry(sku, sold, protected, terms):
    """What a thing costs by contract."""
    fixed = resolve({entry["sku"]: entry for entry in terms.get("fixed", [])}, sku)
    if fixed:
        return {**fixed, "sku": sku}
    public, kept = resolve(sold, sku), resolve(protected, sku)
    entry = {**(lesser(public, kept) if kept else public), "sku": sku}
    left = 10**6 - off_ppm(terms.get("discounts", []), sku)
    return changed(entry, lambda amount: half_even(Fraction(amount * left, 10**6))) if left < 10**6 else entry


def output_of(sku):
    """The tokens that a request makes, by the name of the request."""
    _, tier, model = sku.split("/", 2)
    return f"tokens/output/{model}" if tier == "default" else f"tokens/{tier}/output/{model}"


def spared(sku, protected, terms):
    """Whether a flat price came later than the prices that are protected."""
    if not protected or sku in protected or any(fixed["sku"] == sku for fixed in terms.get("fixed", [])):
        return False
    return sku in ("project/month", "storage/files", "egress/files") or (sku.startswith("requests/") and output_of(sku) in protected) or (
        sku.startswith("starts/") and sells_time_on(sku.removeprefix("starts/"), protected))


def sells_time_on(kind, prices):
    """Whether a list has a price for time on devices of a kind."""
    return any(sku.startswith("device/") and parts_of(sku)[3] == kind for sku in prices)


def request_of(sku):
    """The request that tokens are of."""
    _, *rest = sku.split("/")
    tier = rest.pop(0) if rest[0] in ("flex", "priority") else "default"
    return f"requests/{tier}/{'/'.join(rest[1:])}"


class Bundle:
    """A bundle that was read."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            self.header = json.loads(next(file))
            lines = [line.rstrip("\n").split(" ", 1) for line in file]
        self.texts = [text for _, text in lines]
        self.leaves = [json.loads(text) for text in self.texts]
        self.content = self.header["content"]
        self.prices, self.own, self.effective = {}, [], {}
        self.notes = self.content.get("rerates", [])
        for text in self.header["price_lists"]:
            read, version = json.loads(text), hashlib.sha256(text.encode()).hexdigest()
            self.prices[version], self.effective[version] = by_sku(read), read["effective_at_micros"]
            if "source" in read:
                self.own.append(read)
        sources = self.header.get("price_sources", {"lists": [], "terms": []})
        self.indexes = {index["index"]: index for index in sources.get("indexes", [])}
        self.sources = {hashlib.sha256(text.encode()).hexdigest(): json.loads(text) for text in sources["lists"] + sources["terms"]}

    def rerate(self):
        """Rates every charge anew and adds them up; what does not agree is raised."""
        found = {name: last_hash(index) for name, index in self.indexes.items()}
        require(found == self.header["details"].get("price_indexes", {}), "other points of an index than were sealed")
        for own in self.own:
            self.remake(own)
        account, lines = self.content["account"], {}
        rerated = {note["id"]: 0 for note in self.notes}
        for leaf in self.leaves:
            self.check_rerate(leaf, rerated)
            entry = self.prices[leaf["price_version"]][leaf["sku"]]
            at, band = leaf["occurred_at_micros"], leaf.get("band")
            require(band == band_at(entry, at, self.indexes), f"{leaf['charge']} is of another band")
            require(leaf["period"] == month_of(at, account["zone"]), f"{leaf['charge']} is of another month")
            before, quantity = leaf["quantity_before"], leaf["quantity"]
            rounded = [half_even(cost(model_of(entry, band), entry["unit"], to)) for to in (before, before + quantity)]
            require(nanos(leaf["charged_before"]) == rounded[0], f"{leaf['charge']} begins at another amount")
            require(nanos(leaf["amount"]) == rounded[1] - rounded[0], f"{leaf['charge']} costs {rounded[1] - rounded[0]}")
            key = (leaf["period"], leaf["project"], leaf["price_version"], leaf["sku"], band)
            lines.setdefault(key, []).append((before, before + quantity, nanos(leaf["amount"])))
        self.check_flat_prices()
        for line in self.content["lines"]:
            self.check_line(line, lines)
        require(not lines, f"the invoice has no line for {list(lines)}")
        for note in self.notes:
            require(rerated[note["id"]] == nanos(note["amount"]), f"{note['id']} adds {rerated[note['id']]} and not {note['amount']}")
        self.check_total()

    def check_flat_prices(self):
        """Each request that has charged tokens has its flat price once, and no other one; each project that was used, at most once."""
        used, flat = set(), []
        moved = {note["id"] for note in self.notes}
        for leaf in self.leaves:
            name = (leaf["source"], leaf["price_version"])
            if leaf["source"] in moved:
                continue
            if leaf["sku"].startswith("requests/"):
                require(leaf["quantity"] == 1, f"{leaf['charge']} is for {leaf['quantity']} requests")
                flat.append((*name, leaf["sku"]))
            elif leaf["sku"].startswith("tokens/") and request_of(leaf["sku"]) in self.prices[leaf["price_version"]]:
                used.add((*name, request_of(leaf["sku"])))
        require(len(flat) == len(set(flat)), "a request has its flat price twice")
        require(set(flat) == used, f"flat prices and used tokens differ: {sorted(set(flat) ^ used)[:3]}")
        projects = [leaf["project"] for leaf in self.leaves if leaf["sku"] == "project/month"]
        require(len(projects) == len(set(projects)), "a project is charged twice for a month")
        named = {leaf["project"] for leaf in self.leaves if not leaf["sku"].startswith(("project/", "fee/", "storage/"))}
        fees = [leaf["source"] for leaf in self.leaves if leaf["sku"].startswith("fee/")]
        require(len(fees) == len(set(fees)), "a fee is charged twice")
        require(set(projects) <= named, "a project is charged for a month in which it was not used")
        self.check_starts(moved)
        self.check_files(moved)

    def check_starts(self, moved):
        """A job is started once, before any of its time, on devices of the kind that its time is of."""
        leaves = [leaf for leaf in self.leaves if leaf["source"] not in moved]
        starts = {}
        for leaf in (leaf for leaf in leaves if leaf["sku"].startswith("starts/")):
            require(leaf["quantity"] == 1, f"{leaf['charge']} is for {leaf['quantity']} starts")
            require(leaf["source"] not in starts, f"the start of {leaf['source']} is charged twice")
            starts[leaf["source"]] = leaf
        for leaf in (leaf for leaf in leaves if leaf["sku"].startswith("device/") and leaf["source"] in starts):
            start, kind = starts[leaf["source"]], parts_of(leaf["sku"])[3]
            require(start["sku"] == f"starts/{kind}", f"{start['charge']} is of another kind than the time of its job")
            require(start["occurred_at_micros"] <= leaf["occurred_at_micros"], f"{leaf['charge']} is of before its job started")

    def check_files(self, moved):
        """An hour of a project is charged once: its parts follow each other in it. A download is charged once."""
        kept = [leaf for leaf in self.leaves if leaf["sku"] == "storage/files" and leaf["source"] not in moved]
        times = [(leaf["project"], leaf["occurred_at_micros"]) for leaf in kept]
        require(len(times) == len(set(times)), "a part of an hour is charged twice")
        hours = {(project, at // (3600 * 10**6)) for project, at in times}
        require(len(hours) == len({leaf["source"] for leaf in kept}), "an hour is metered twice")
        sent = [leaf["source"] for leaf in self.leaves if leaf["sku"] == "egress/files" and leaf["source"] not in moved]
        require(len(sent) == len(set(sent)), "a download is charged twice")

    def check_rerate(self, leaf, rerated):
        """Use leaves a line only where the invoice says why, and a list is used before its date only where it says so."""
        source, at, version = leaf["source"], leaf["occurred_at_micros"], leaf["price_version"]
        if source in rerated:
            rerated[source] += nanos(leaf["amount"])
        else:
            require(leaf["quantity"] >= 0 and not source.startswith("rer_"), f"{leaf['charge']} takes use off its line")
        times = [note["interval"] for note in self.notes if note["to"] == version]
        said = any(time["starts_at"] <= at < time["ends_at"] for time in times)
        # Clocks of gateways differ by less than a day.
        require(said or at >= self.effective[version] - 86_400 * 10**6, f"{leaf['charge']} is of a later price list")

    def remake(self, own):
        """Makes a price list by contract again from the public list and the terms."""
        source, month = own["source"], month_of(own["effective_at_micros"], self.content["account"]["zone"])
        require({source["list"], source["terms"]} <= self.sources.keys(), "what a price list is made from is not there")
        public, version = self.sources[source["list"]], self.sources[source["terms"]]
        terms = version["terms"]["pricing"]
        require(public["effective_at_micros"] <= own["effective_at_micros"], "a price list is made from a later one")
        require(version["from"] <= month, f"terms from {version['from']} on in {month}")
        protection = terms.get("protection")
        if protection and month > protection.get("until", month):
            protection = None
        require(source.get("protected") == (protection["list"] if protection else None), f"other protection in {month}")
        protected = by_sku(self.sources[protection["list"]]) if protection else {}
        sold = {sku: entry for sku, entry in by_sku(public).items() if not spared(sku, protected, terms)}
        made = {sku: own_entry(sku, sold, protected, terms) for sku in own_names(sold, protected, terms)}
        found = by_sku(own)
        require(made.keys() == found.keys(), "a price list by contract has other things than the public one")
        for sku, entry in made.items():
            require(plain(entry) == plain(found[sku]), f"{sku} is {found[sku]} by contract, and not {entry}")

    def named_terms(self):
        """The terms that the parts by contract name: of the commitment, of a fee for leaving, of what is billed in advance."""
        part, advance = self.content.get("commitment", {}), self.content.get("advance", {})
        hashes = [found["terms"] for found in (part,) if found] + ([part["fee_terms"]] if "fee_terms" in part else [])
        hashes += [advance["terms"]] if advance else []
        texts = self.header.get("contract_terms", [])
        require([hashlib.sha256(text.encode()).hexdigest() for text in texts] == hashes, "other terms than the invoice names")
        return [json.loads(text) for text in texts]

    def check_line(self, line, lines):
        late = line.get("late") or {}
        if late:
            require(late["period"] < self.content["period"]["key"], f"{line['sku']} is late in its own month")
        entry = self.prices[line["price_version"]][line["sku"]]
        require(line["unit"] == entry["unit"], f"{line['sku']} is counted in another unit")
        period = late.get("period", self.content["period"]["key"])
        found = lines.pop((period, line["project"], line["price_version"], line["sku"], line.get("band")), [])
        first = reached = late.get("quantity_before", 0)
        if any(line["price_version"] in (note["of"], note["to"]) for note in self.notes):
            reached = self.follow(line, found, first)
        else:
            # By where they begin; a charge for nothing before what begins with it.
            for begin, end, _ in sorted(part for part in found if part[1] > part[0]):
                require(begin == reached, f"the charges of {line['sku']} leave out {reached} to {begin}")
                reached = end
        require(reached - first == line["quantity"], f"{line['sku']} has another quantity")
        require(len(found) == line["charges"]["count"], f"{line['sku']} has {len(found)} charges")
        require(sum(part[2] for part in found) == nanos(line["charges"]["amount"]), f"{line['sku']} has another amount")

    def follow(self, line, found, first):
        """Where charges lead that add use and take it off: each goes on where another one ended."""
        starts = {}
        for begin, end, _ in found:
            starts[begin] = starts.get(begin, 0) + 1
            starts[end] = starts.get(end, 0) - 1
        last = first + line["quantity"]
        want = {first: 1, last: -1} if last != first else {}
        require({place: count for place, count in starts.items() if count} == want, f"the charges of {line['sku']} do not follow each other")
        return last

    def check_total(self):
        subtotal = sum(nanos(line["charges"]["amount"]) for line in self.content["lines"])
        part = self.content.get("commitment")
        if part:
            subtotal += nanos(part["shortfall"]) + nanos(part["exit_fee"]) - nanos(part["roll_over_used"])
            subtotal += nanos(part.get("quantity", {}).get("overage_amount", "0"))
            subtotal -= nanos(part.get("drawdown", {}).get("drawn", "0"))
        if "advance" in self.content:
            subtotal += nanos(self.content["advance"]["fee"]) + nanos(self.content["advance"].get("commitment", "0"))
        carry = nanos(self.content["carry_before"])
        minor = 10 ** (9 - minor_digits(self.content["account"]["currency"]))
        require(2 * abs(carry) <= minor, f"{self.content['carry_before']} carried over is more than a rounding leaves")
        total = half_even(Fraction(subtotal - carry, minor)) * minor
        want = {"subtotal": subtotal, "total": total, "carry_after": carry + total - subtotal}
        for name, amount in want.items():
            require(nanos(self.content[name]) == amount, f"the {name} is {amount} and not {self.content[name]}")
        self.check_tax(total, minor)

    def check_tax(self, total, minor):
        """Each tax is the rounded rate of what the invoice comes to less gifts, and only what has a rate is taxed."""
        tax = self.content.get("tax")
        if tax is None:
            named = [name for name in ("seller", "buyer", "terms") if name in self.content]
            require(not named, f"{named} without taxes")
            return
        used = sum(nanos(line["charges"]["amount"]) for line in self.content["lines"])
        used -= nanos(self.content.get("commitment", {}).get("drawdown", {}).get("drawn", "0"))
        gifts = nanos(tax["gifts"])
        require(0 <= gifts <= max(0, min(total, used)) and gifts % minor == 0, f"gifts of {gifts} pay an invoice of {total}")
        require(1 <= len(tax["lines"]) <= 4, f"{len(tax['lines'])} taxes")
        for line in tax["lines"]:
            name, rate = f"{line['name']} of {line['jurisdiction']}", line["rate_ppm"]
            require((rate > 0) == (line["category"] == "S"), f"{name} is of the category {line['category']}")
            require(nanos(line["base"]) == total - gifts, f"the base of {name} is {total - gifts}")
            amount = half_even(Fraction((total - gifts) * rate, 10**6 * minor)) * minor
            require(nanos(line["amount"]) == amount, f"{name} is {amount} and not {line['amount']}")
            parties = [self.content["seller"]["party"], self.content.get("buyer", {}).get("party", {})]
            shifted = line["category"] == "AE"
            require(not shifted or all("tax_id" in party for party in parties), f"{name} is not the buyer's to pay")
        require(nanos(tax["amount"]) == sum(nanos(line["amount"]) for line in tax["lines"]), "the taxes add up to another amount")


def months(name):
    """How many months a month is after the year 0."""
    return int(name[:4]) * 12 + int(name[5:]) - 1


def step_of(steps, number):
    """The step of a ramp that holds in a period."""
    return [step for step in steps if step["from_period"] <= number][-1]


def unit_price(terms):
    """What a base unit of the committed thing costs, exactly."""
    entry = by_sku({"entries": terms["pricing"]["fixed"]})[terms["quantities"]["sku"]]
    return Fraction(nanos(entry["model"]["price"]), UNITS[entry["unit"]])


def overage_price(terms, price):
    """What a base unit beyond the commitment costs."""
    overage = terms["quantities"].get("overage")
    units = {"device": "device-hour", "starts": "start", "fee": "fee", "project": "project-month", "requests": "request", "tokens": "1M tokens",
             "storage": "GiB-month", "egress": "GiB"}
    unit = UNITS[units[terms["quantities"]["sku"].split("/")[0]]]
    return Fraction(nanos(overage["price"]), unit) if overage else price


def committed(terms, number):
    """What a commitment period is committed to; of a quantity, what it costs."""
    if "quantities" in terms:
        return half_even(step_of(terms["quantities"]["steps"], number)["quantity"] * unit_price(terms))
    return nanos(step_of(terms["commitments"], number)["amount"])


def exit_fee(terms, newest, number):
    """What leaving after a period costs: a part of what the rest of the term is committed to."""
    end, length = newest["months"], newest["period_months"]
    while end < number * length:
        end += newest["renewal"]["months"]
    left = sum(committed(newest, later) for later in range(number + 1, end // length + 1))
    minor = 10 ** (9 - minor_digits(terms["currency"]))
    return half_even(Fraction(half_even(Fraction(left * terms["exit"]["fee_ppm"], 10**6)), minor)) * minor


def counts(terms, sku):
    """Whether use of something counts towards a commitment."""
    if "quantities" in terms:
        return terms["quantities"]["sku"] in covering(sku)
    families = {"tokens": "model_tokens", "requests": "model_requests", "device": "device_time", "starts": "job_starts", "project": "project_fees",
                "fee": "one_time_fees", "storage": "file_storage", "egress": "file_egress"}
    return families[sku.split("/")[0]] in terms["covers"]


def roll(lots, number):
    """What of earlier shortfalls can still be used up; each is [last period, left]."""
    lots[:] = [lot for lot in lots if lot[0] >= number and lot[1] > 0]
    return sum(left for _, left in lots)


def settle_lots(lots, used, last, missing):
    """Uses up the oldest, and adds what is missing now."""
    for lot in lots:
        taken = min(used, lot[1])
        lot[1] -= taken
        used -= taken
    if missing:
        lots.append([last, missing])


def settle_quantity(part, terms, covered, state, is_last):
    """Settles a committed quantity; gives what is missing and used up of it, as amounts."""
    said, number, price = part["quantity"], part["number"], unit_price(terms)
    quantity, lots = step_of(terms["quantities"]["steps"], number)["quantity"], state.setdefault("lots", [])
    here, before = sum(line["quantity"] for line in covered), state.get(number, 0)
    state[number], rolled = before + here, roll(lots, number)
    beyond = state[number] - quantity if is_last else 0
    missing, used = max(0, -beyond), min(max(0, beyond), rolled)
    overage = max(0, beyond) - used
    dearer = overage_price(terms, price) - price
    want = {"sku": terms["quantities"]["sku"], "committed": quantity, "counted_before": before, "counted": here,
            "roll_over": rolled, "missing": missing, "roll_over_used": used, "overage": overage}
    for name, value in want.items():
        require(said[name] == value, f"{name} of a quantity is {value} and not {said[name]} in period {number}")
    require(nanos(said["overage_amount"]) == half_even(overage * dearer), f"overage costs {overage * dearer}")
    require(nanos(part["roll_over"]) == half_even(rolled * price), f"{rolled} roll over into period {number}")
    settle_lots(lots, used, number + terms["roll_over_periods"], missing)
    return half_even(missing * price), half_even(used * price)


def draw(part, terms, counted, lots, is_last, goes_on):
    """What is drawn of a commitment that was billed in advance, and what is left and lapses at its end."""
    said, number, here = part["drawdown"], part["number"], nanos(part["counted"])
    rolled, own = roll(lots, number), committed(terms, number)
    require(nanos(part["roll_over"]) == rolled, f"{rolled} roll over into period {number}")
    before, total = (min(max(0, count), own + rolled) for count in (counted - here, counted))
    want = {"drawn": total - before, "unused": 0, "roll_over_used": 0, "lapsed": 0}
    if is_last:
        want["unused"], want["roll_over_used"] = max(0, own - total), max(0, total - own)
        settle_lots(lots, want["roll_over_used"], number + terms["roll_over_periods"], want["unused"])
        left = own + rolled - total
        want["lapsed"] = left - roll([list(lot) for lot in lots], number + 1)
        # Whoever left loses all of it; nothing here says so but that there are no later invoices of the contract.
        if not goes_on and nanos(said["lapsed"]) == left:
            want["lapsed"] = left
    for name, value in want.items():
        require(nanos(said[name]) == value, f"{name} of a drawdown is {value} and not {said[name]} in period {number}")
    return 0, 0


def counted_from(first, month, lines):
    """What counts in a period: what was rated anew of a month before it, and costs less, was settled with its own."""
    months_used = {}
    for line in lines:
        used = (line.get("late") or {}).get("period", month)
        months_used[used] = months_used.get(used, 0) + nanos(line["charges"]["amount"])
    return sum(max(0, amount) if used < first else amount for used, amount in months_used.items())


def settle_contract(bundles):
    """Settles the commitment periods of one contract anew from all its invoices, in the order of their months."""
    counted, lots, quantities = {}, [], {}
    for bundle in bundles:
        part, month = bundle.content["commitment"], bundle.content["period"]["key"]
        versions = bundle.named_terms()
        versions = versions[:-1] if "advance" in bundle.content else versions
        require(months(versions[0]["from"]) <= months(month), f"terms from {versions[0]['from']} on in {month}")
        terms, newest = versions[0]["terms"], versions[-1]["terms"]
        before, number = (months(month) - months(terms["starts"])) // terms["period_months"], part["number"]
        require(number == before + 1, f"{month} is in period {before + 1}")
        last = months(terms["starts"]) + number * terms["period_months"] - 1
        require(months(part["last"]) == last and months(part["first"]) == last - terms["period_months"] + 1, "other months")
        require(nanos(part["committed"]) == committed(terms, number), "another commitment")
        paid = terms.get("payment")
        require(paid is None or bundle.content.get("terms", paid) == paid, f"{month} is paid by other terms than agreed")
        covered = [line for line in bundle.content["lines"] if counts(terms, line["sku"])]
        here = counted_from(part["first"], month, covered)
        require(nanos(part["counted"]) == here, f"{here} count towards the commitment in {month}")
        require(nanos(part["counted_before"]) == counted.get(number, 0), f"another sum was counted before {month}")
        counted[number] = counted.get(number, 0) + here
        require(("quantity" in part) == ("quantities" in terms), "what is committed is not what is settled")
        require(("drawdown" in part) == (terms.get("billed") == "in_advance"), "it is billed at another time")
        if "drawdown" in part:
            missing, used = draw(part, terms, counted[number], lots, months(month) == last, bundle is not bundles[-1])
        elif "quantities" in terms:
            missing, used = settle_quantity(part, terms, covered, quantities, months(month) == last)
        else:
            rolled = roll(lots, number)
            require(nanos(part["roll_over"]) == rolled, f"{rolled} roll over into period {number}")
            beyond = counted[number] - committed(terms, number) if months(month) == last else 0
            missing, used = max(0, -beyond), min(max(0, beyond), rolled)
            settle_lots(lots, used, number + terms["roll_over_periods"], missing)
        require(nanos(part["shortfall"]) == missing, f"{missing} are missing in period {number}")
        require(nanos(part["roll_over_used"]) == used, f"{used} are used up in period {number}")
        fee = nanos(part["exit_fee"])
        require(fee == 0 or (months(month) == last and fee == exit_fee(terms, newest, number)), f"leaving costs another fee than {fee}")


def check_advances(bundles):
    """Every fee and commitment that was billed in advance; says how many there are."""
    billed = set()
    for bundle in (bundle for bundle in bundles if "advance" in bundle.content):
        part, version, month = bundle.content["advance"], bundle.named_terms()[-1], months(bundle.content["period"]["key"])
        terms, first = version["terms"], months(part["first"])
        number, rest = divmod(first - months(terms["starts"]), terms["period_months"])
        require(first == month + 1 and rest == 0 and months(version["from"]) <= first, f"no period begins in {part['first']}")
        require(part["number"] == number + 1, f"period {number + 1} begins in {part['first']}")
        require("renewal" in terms or number < terms["months"] // terms["period_months"], "the contract is over by then")
        require(months(part["last"]) == first + terms["period_months"] - 1, "a period has other months")
        fee = nanos(terms["fee"]["amount"]) if "fee" in terms else 0
        require(nanos(part["fee"]) == fee, f"the fee is {fee}")
        drawn_down = committed(terms, number + 1) if terms.get("billed") == "in_advance" else 0
        require(nanos(part.get("commitment", "0")) == drawn_down, f"{drawn_down} are committed in period {number + 1}")
        require(fee + drawn_down > 0, "nothing is billed in advance")
        require((part["contract"], number) not in billed, f"a fee of {part['contract']} is billed twice")
        billed.add((part["contract"], number))
    return len(billed)


def check_drawn(bundles):
    """What is drawn was billed in advance, by an invoice that is here where the months go back that far."""
    billed = {}
    for bundle in bundles:
        if "advance" in bundle.content:
            part = bundle.content["advance"]
            billed[(part["contract"], part["number"])] = nanos(part.get("commitment", "0"))
    for bundle in bundles:
        part = bundle.content.get("commitment", {})
        if "drawdown" not in part or nanos(part["committed"]) == 0:
            continue
        account = bundle.content["account"]["organization"]
        known = min(months(one.content["period"]["key"]) for one in bundles if one.content["account"]["organization"] == account)
        of, before = (part["contract"], part["number"]), months(part["first"]) - 1
        # With every invoice of the contract's first period nothing may be missing before it.
        require(of in billed or before < known and part["number"] > 1, f"period {of[1]} of {of[0]} is drawn, and was never billed")


def settle_contracts(bundles):
    """Every contract that invoices have a part of; says how many parts there are."""
    contracts = {}
    for bundle in bundles:
        if "commitment" in bundle.content:
            contracts.setdefault(bundle.content["commitment"]["contract"], []).append(bundle)
    for parts in contracts.values():
        settle_contract(sorted(parts, key=lambda bundle: bundle.content["period"]["key"]))
    return sum(len(parts) for parts in contracts.values())


def minor_digits(currency):
    """Decimals of a currency's smallest unit, as ISO 4217 has them."""
    return {"JPY": 0, "KRW": 0, "VND": 0, "CLP": 0, "BHD": 3, "KWD": 3, "OMR": 3, "JOD": 3, "TND": 3, "IQD": 3}.get(currency, 2)


def main(paths):
    wrong, bundles = 0, [Bundle(path) for path in paths]
    for bundle in bundles:
        number = bundle.header["seal"]["number"]
        try:
            bundle.rerate()
        except Wrong as problem:
            wrong += 1
            print(f"FAIL {number}: {problem}")
        else:
            print(f"ok {number}: {len(bundle.leaves)} charges, {bundle.content['total']} {bundle.content['account']['currency']}")
    if not wrong:
        print(f"prices by contract ok: {sum(len(bundle.own) for bundle in bundles)} lists")
    try:
        print(f"contracts ok: {settle_contracts(bundles)} parts of invoices")
        print(f"billed in advance ok: {check_advances(bundles)}")
        check_drawn(bundles)
    except Wrong as problem:
        wrong += 1
        print(f"FAIL contract: {problem}")
    return 1 if wrong or not paths else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
