"""Lives through a customer's year, and has pages, tables, files and books agree on it to the cent.

Usage: year.py. Reads the environment that every suite has, of a cloud with a test clock; SUBLET_BINARY is the program
and SUBLET_OUT a folder to write into. Nothing is added up here that Sublet added up: amounts are read off the console's
pages, the tables of the command line, the PDFs and the API, each by itself.
"""

import contextlib
import decimal
import http.cookiejar
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import urllib.parse
import urllib.request

import rerate
from cloud import ADMIN, OPERATOR, ROOT, ask, chat, eventually, judge, make_dear, say_who_sells, see, to_next_month

BINARY, OUT = os.environ["SUBLET_BINARY"], pathlib.Path(os.environ["SUBLET_OUT"])
MONTHS = 12
BILLING = "/v1/organization/billing"
AMOUNT = r"(-?\d[\d,]*(?:\.\d+)?)"


def run(*command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{command}: {done.stdout[-500:]}{done.stderr[-500:]}"
    return done.stdout


def cli(*words):
    return json.loads(run(BINARY, "--url", ROOT, "--json", *words))


def number(text):
    return decimal.Decimal(text.replace(",", ""))


def issued():
    bills = see(f"{BILLING}/invoices?limit=100", ADMIN)["data"]
    return sorted((bill for bill in bills if bill["number"]), key=lambda bill: bill["number"])


def gross(bill):
    return decimal.Decimal((bill["tax"]["gross"] if "tax" in bill else bill["total"])["amount"])


def pay_by_bank(amount, transaction):
    reference = cli("top-ups", "create", amount, "--method", "bank")["reference"]
    statement = OUT / f"{transaction}.csv"
    statement.write_text(f"transaction_id,amount,currency,reference\n{transaction},{amount},EUR,{reference}\n")
    for _ in range(2):
        cli("payments", "import", statement)


def month_after(month):
    year, last = map(int, month.split("-"))
    return f"{year}-{last + 1:02}" if last < 12 else f"{year + 1}-01"


def commit(organization, name, terms):
    month = see("/operator/v1/clock", OPERATOR)["now"][:7]
    path = OUT / "terms.json"
    path.write_text(json.dumps({"currency": "EUR", "starts": month_after(month), "period_months": 1, **terms}))
    contract = cli("contracts", "offer", organization, "--name", name, "--terms", path)["id"]
    cli("contracts", "accept", contract, "--terms", cli("contracts", "show", contract)["versions"][0]["terms_hash"])


def rate_first_month_anew():
    """The first month's list was too dear: what it is less by the starter's prices is in the running month."""
    first = issued()[0]
    wrong = first["lines"][0]["price_version"]
    right = min(see("/operator/v1/price_lists", OPERATOR)["data"], key=lambda version: version["effective_at"])["version"]
    assert right != wrong
    words = ["--of", wrong, "--to", right, "--from", first["period_start"], "--until", first["period_end"]]
    simulated = cli("rerates", "simulate", *words, "--reason", "the first list was too dear")
    for _ in range(2):
        applied = cli("rerates", "apply", simulated["id"])
        assert (applied["status"], applied["would_be"]) == ("applied", simulated["would_be"]), applied
    assert decimal.Decimal(applied["would_be"]["amount"]) < decimal.Decimal(applied["charged"]["amount"]), applied


def live():
    """Twelve months: use in each, and what befalls a customer in some."""
    organization = see("/v1/organization/self", ADMIN)["id"]
    make_dear()
    for month in range(MONTHS):
        if month == 2:
            say_who_sells()
        if month == 3:
            pay_by_bank("50.00", "bank-1")
        if month == 4:
            now = see("/operator/v1/clock", OPERATOR)["now"]
            end = f"{int(now[:4]) + 1}-01-01T00:00:00Z"
            cli("billing", "credits", "grant", organization, "7", "--kind", "promotional", "--expires-at", end)
            refund = cli("refunds", "request", "5.95", "--note", "too much")["id"]
            cli("refunds", "approve", refund)
            cli("refunds", "paid", refund, "--transaction", "out-1")
        if month == 5:
            body = {"amount": {"amount": "0.10", "currency": "EUR"}, "kind": "paid", "reason": "slow answers"}
            ask("POST", f"/operator/v1/invoices/{issued()[-1]['id']}/credit_notes", OPERATOR, body)
        if month == 10:
            rate_first_month_anew()
        mine = [chat(20 + 7 * month + call) for call in range(2)]
        eventually("the charges", lambda: all(see(f"{BILLING}/charges?request={request}", ADMIN)["data"] for request in mine))
        if month == 6:
            commit(organization, "A quarter", {"months": 3, "covers": ["model_tokens"], "roll_over_periods": 1,
                                               "commitments": [{"from_period": 1, "amount": "3"}]})
        if month == 9:
            # The quarter ends with this month. What follows is paid before it is used.
            commit(organization, "In advance", {"months": 2, "covers": ["model_tokens", "model_requests"], "billed": "in_advance",
                                                "commitments": [{"from_period": 1, "amount": "2"}]})
        to_next_month()


def check_year():
    live()
    bills = issued()
    assert len(bills) == MONTHS, [bill["number"] for bill in bills]
    assert [len(bill.get("rerates", [])) for bill in bills] == [0] * 10 + [1, 0]
    assert sum("commitment" in bill for bill in bills) == 5 and any(bill.get("tax", {}).get("lines") for bill in bills)


def console_pages():
    """Opens the console as a browser does."""
    jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
    browser = urllib.request.build_opener(jar)
    form = urllib.parse.urlencode({"key": ADMIN, "next": "/console/invoices"}).encode()
    request = urllib.request.Request(f"{ROOT}/console/login", form, {"origin": ROOT})
    with browser.open(request, timeout=60) as answer:
        return answer.read().decode()


def check_tables():
    """Every invoice's total, and what is to be paid of it: as the API, the console and the command line say it."""
    page = console_pages()
    assert "VAT DE, 19 % of 0 EUR" in page and "&#60;" not in page, "the page shows its own markup"
    table = run(BINARY, "--url", ROOT, "billing", "invoices", "list", "--limit", "100")
    sums = {"API": decimal.Decimal(0), "console": decimal.Decimal(0), "table": decimal.Decimal(0)}
    for bill in issued():
        name, due = bill["number"], decimal.Decimal(bill["amount_due"]["amount"])
        row = re.search(rf"<tr>(?:(?!</tr>).)*{name}(?:(?!</tr>).)*</tr>", page, re.S)
        assert row, f"{name} is not in the console"
        cells = [number(cell) for cell in re.findall(r'<td class="number"><data class="amount" value="([^"]*)"', row[0])]
        line = next((line for line in table.splitlines() if name in line), "")
        amounts = [number(amount) for amount in re.findall(rf"{AMOUNT} EUR", line)]
        assert (cells[0], cells[2]) == (gross(bill), due), (name, row[0])
        assert amounts == [decimal.Decimal(bill["total"]["amount"]), gross(bill), due], (name, line)
        for where, amount in (("API", gross(bill)), ("console", cells[0]), ("table", amounts[1])):
            sums[where] += amount
    assert len(set(sums.values())) == 1 and sums["API"] > 10, sums


def check_files():
    """The PDF of each says the same, and its bundle proves it; another program adds all of them up again."""
    bundles = []
    for bill in issued():
        document, bundle = OUT / f"{bill['number']}.pdf", OUT / f"{bill['number']}.bundle"
        run(BINARY, "--url", ROOT, "billing", "invoices", "download", bill["number"], "--format", "pdf", "--output", document)
        text = run("pdftotext", "-layout", document, "-")
        said = {number(amount) for amount in re.findall(AMOUNT, text)}
        # A document takes gifts off before taxes.
        gifts = decimal.Decimal(bill["tax"]["gifts"]["amount"]) if "tax" in bill else 0
        assert bill["number"] in text and gross(bill) - gifts in said, text
        run(BINARY, "--url", ROOT, "billing", "invoices", "bundle", bill["id"], "--output", bundle)
        run(BINARY, "verify-invoice", bundle)
        bundles.append(str(bundle))
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert rerate.main(bundles) == 0, said.getvalue()


def check_books():
    """Lines are what was charged, and totals are lines, contract and rounding, to the last unit."""
    bills = issued()
    amount = lambda value: decimal.Decimal(value["amount"])
    lines = sum(amount(line["amount"]) for bill in bills for line in bill["lines"])
    credits = see(f"{BILLING}/credits", ADMIN)
    credited = sum(amount(bill["credited"]) for bill in bills)
    assert credited > 0 and amount(credits["captured"]) == lines + committed(bills) - credited, (lines, credits)
    for bill in bills:
        assert amount(bill["subtotal"]) + amount(bill["carried"]) + amount(bill["rounding"]) == amount(bill["total"]), bill
    assert amount(credits["owed"]) == 0 and all(bill["status"] == "paid" for bill in bills), "not all is paid"
    run(BINARY, "--url", ROOT, "ledger", "verify")


def committed(bills):
    """What contracts added: the subtotals beyond the lines."""
    amount = lambda value: decimal.Decimal(value["amount"])
    beyond = sum(amount(bill["subtotal"]) - sum(amount(line["amount"]) for line in bill["lines"]) for bill in bills)
    assert beyond > 0, "the contract added nothing"
    return beyond


def main():
    checks = [
        ("a year is lived, with payments, a refund, a gift, a credit note, taxes and a contract", check_year),
        ("console, command line and API agree on every invoice and on their sum", check_tables),
        ("PDFs and bundles agree with them", check_files),
        ("and so do the books", check_books),
    ]
    return judge(checks)


if __name__ == "__main__":
    sys.exit(main())
