"""A cloud that a suite asks over HTTP, and how a suite says what it found. Reads the environment that every suite has."""

import decimal
import json
import os
import time
import urllib.request

ROOT = os.environ["SUBLET_API_BASE"].removesuffix("/v1")
PROJECT, ADMIN, OPERATOR = (os.environ[f"SUBLET_{plane}_KEY"] for plane in ("PROJECT", "ADMIN", "OPERATOR"))
MODEL = os.environ["SUBLET_MODEL"]
WAIT_MAX = 30


def ask(method, path, key=None, body=None):
    headers = {"content-type": "application/json"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(ROOT + path, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read(), answer.headers


def see(path, key):
    return json.loads(ask("GET", path, key)[0])


def chat(words):
    body = {"model": MODEL, "max_tokens": words, "messages": [{"role": "user", "content": "Count."}]}
    return ask("POST", "/v1/chat/completions", PROJECT, body)[1]["x-request-id"]


def eventually(what, probe):
    end = time.monotonic() + WAIT_MAX
    while not (found := probe()):
        if time.monotonic() > end:
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(0.05)
    return found


def make_dear():
    """Tokens cost so much that a few of them come to more than a cent, and each request has a flat price besides."""
    newest = see("/operator/v1/price_lists?limit=1", OPERATOR)["data"][0]
    for price in newest["prices"]:
        if price["meter"] != "device_milliseconds":
            price["amount"] = str(decimal.Decimal(price["amount"]) * 12_345)
    models = {price["subject"]["name"] for price in newest["prices"] if price["subject"]["kind"] == "model"}
    flat = {"meter": "requests", "per": 1, "amount": "0.012345678"}
    newest["prices"] += [{**flat, "subject": {"kind": "model", "name": name}} for name in sorted(models)]
    ask("POST", "/operator/v1/price_lists", OPERATOR, {key: newest[key] for key in ("name", "currency", "prices")})


def say_who_sells(**more):
    """A German seller and customer, and the German rate."""
    address = lambda city: {"lines": ["Werftstraße 1"], "city": city, "postal_code": "24143", "country": "DE"}
    ask("PUT", "/operator/v1/seller", OPERATOR, {
        "party": {"legal_name": "Rechenzentrum Nord GmbH", "address": address("Kiel"), "tax_id": "DE123456788"},
        "bank": {"iban": "DE89370400440532013000"}, "footer": "Ada Beispiel, HRB 12345 KI", "terms": {"net_days": 14},
        **more,
    })
    row = {"jurisdiction": "DE", "name": "VAT", "rate": "19", "from": "2020-01-01"}
    ask("PUT", "/operator/v1/tax_table", OPERATOR, {"rows": [row]})
    party = {"legal_name": "Zahnräder & Söhne GmbH", "address": address("Magdeburg")}
    ask("PUT", "/v1/organization/billing/profile", ADMIN, {"party": party, "purchase_order": "PO-4711"})


def to_next_month():
    """To the day after the month's end, wherever the account is. The new month."""
    year, month = map(int, see("/operator/v1/clock", OPERATOR)["now"][:7].split("-"))
    year, month = (year, month + 1) if month < 12 else (year + 1, 1)
    ask("PUT", "/operator/v1/clock", OPERATOR, {"now": f"{year}-{month:02}-02T12:00:00Z"})
    return f"{year}-{month:02}"


def judge(checks):
    """Runs every check and prints a line for each. The exit status."""
    failed = 0
    for name, run in checks:
        try:
            run()
        except Exception as problem:  # Whatever a judge says, the next one is heard.
            failed += 1
            print(f"FAIL {name}: {type(problem).__name__}: {problem}")
        else:
            print(f"ok {name}")
    return 1 if failed else 0
