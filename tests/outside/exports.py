"""Has other people's programs judge the files that Sublet exports for finance and FinOps.

Usage: exports.py. Reads the environment that every suite has, of a cloud with a test clock; SUBLET_BINARY is the
program, and SUBLET_OUT a folder to write into. FOCUS 1.2 is judged by focus-validator, all datasets of 1.4 one by one and
together by focus-data-toolkit, Parquet is read by pyarrow, and sums are made with Python's decimals. Each judge has to
refuse a file that was made wrong.
"""

import csv
import decimal
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import urllib.error

import focus_validator
import pyarrow
import pyarrow.parquet

from focus_data_toolkit.validate.bundle import validate_dataset_bundle

from cloud import (
    ADMIN, OPERATOR, PROJECT, ROOT, ask, chat, eventually, judge, make_dear, say_who_sells, see, to_next_month,
)

BINARY, OUT = os.environ["SUBLET_BINARY"], pathlib.Path(os.environ["SUBLET_OUT"])
PROGRAMS = pathlib.Path(sys.executable).parent
MONTHS, CALLS = 3, 5

# Rules of focus-validator 2.2.1 of which a file keeps one at most: it takes "null where there is no invoice" and "not null
# where there is one" for "always".
IMPOSSIBLE = {"InvoiceId-C-000-O", "InvoiceId-C-003-C", "InvoiceId-C-004-C", "InvoiceId-C-005-C"}
# What FOCUS 1.4 has beside Cost and Usage, and what it is called there.
SUPPORTING = {
    "billing-period": "Billing Period", "invoice-detail": "Invoice Detail", "contract-commitment": "Contract Commitment",
}
# Conditions of the specification that hold for Sublet.
SUPPORTS = ["SupportsUnitPricing", "SupportsMultiplePricingCategories"]
CRITERIA = [
    "ACCOUNT_NAMING_SUPPORTED", "MULTIPLE_BILLING_ACCOUNT_TYPES_SUPPORTED", "MULTIPLE_PRICING_CATEGORIES_SUPPORTED",
    "MULTIPLE_SUB_ACCOUNT_TYPES_SUPPORTED", "NEGOTIATED_PRICING_SUPPORTED", "PUBLIC_PRICE_LIST_SUPPORTED",
    "UNIT_PRICING_SUPPORTED", "USAGE_MEASUREMENT_SUPPORTED", "SUB_ACCOUNT_SUPPORTED", "TAGGING_SUPPORTED",
    "BILLING_BASED_ON_PROVISIONED_RESOURCES_SUPPORTED", "RESOURCE_TYPE_ASSIGNMENT_SUPPORTED",
]

decimal.getcontext().prec = 60


def charged(filter):
    return see(f"/v1/organization/billing/charges?{filter}", ADMIN)["data"]


def use(calls):
    mine = [chat(1 + call) for call in range(calls)]
    eventually("the charges", lambda: all(charged(f"request={request}") for request in mine))


def now():
    return see("/operator/v1/clock", OPERATOR)["now"][:7]


def run_job():
    """Uses a device for a moment, and gives it back."""
    quote = json.loads(ask("POST", "/v1/quotes", PROJECT, {"sku": "cpu"})[0])
    lease = json.loads(ask("POST", "/v1/leases", PROJECT, {"quote": quote["id"]})[0])
    job = json.loads(ask("POST", "/v1/jobs", PROJECT, {"lease": lease["id"], "command": ["sleep", "0.05"]})[0])
    eventually("the job's charge", lambda: charged(f"job={job['id']}"))
    eventually("the end of the lease", lambda: see(f"/v1/leases/{lease['id']}", PROJECT)["status"] not in ("active", "pending", "ending"))
    return job["id"]


def agree():
    """A contract over a commitment of a month, a fee in advance from the second on, and what is missing rolls over."""
    start = now()
    organization = see("/v1/organization/self", ADMIN)["id"]
    terms = {
        "currency": "EUR", "starts": following(start), "months": 12, "period_months": 1,
        "covers": ["model_tokens", "model_requests", "device_time"],
        "commitments": [{"from_period": 1, "amount": "5"}, {"from_period": 3, "amount": "8"}],
        "fee": "3", "roll_over_periods": 2,
    }
    body = {"organization": organization, "name": "A year", "terms": terms}
    offer = json.loads(ask("POST", "/operator/v1/contracts", OPERATOR, body)[0])
    hash = see(f"/v1/organization/contracts/{offer['id']}", ADMIN)["versions"][0]["terms_hash"]
    ask("POST", f"/v1/organization/contracts/{offer['id']}/accept", ADMIN, {"terms_hash": hash})


def following(month):
    year, number = map(int, month.split("-"))
    return f"{year + number // 12}-{number % 12 + 1:02}"


def live_through_months():
    """Uses the cloud for some months, and a little of the next. The months' names."""
    make_dear()
    say_who_sells()
    agree()
    months = []
    for _ in range(MONTHS):
        use(CALLS)
        run_job()
        months.append(now())
        to_next_month()
    use(2)
    return months


def invoices():
    data = see("/v1/organization/billing/invoices?limit=100", ADMIN)["data"]
    return {invoice["number"]: invoice for invoice in data if invoice["number"]}


def export(month, form="csv", version="1.2", dataset="focus"):
    """A file, got with the program as a customer would."""
    version = "1.4" if dataset in SUPPORTING else version
    path = OUT / f"{dataset}-{version}-{month}.{form}"
    arguments = ["billing", "export", dataset, "--period", month, "--format", form, "--output", path]
    arguments += ["--version", version] if dataset == "focus" else []
    done = subprocess.run([BINARY, "--url", ROOT, *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return path


def gross(document):
    return decimal.Decimal((document["tax"]["gross"] if document["tax"] else document["total"])["amount"])


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def total(found, column="BilledCost"):
    return sum((decimal.Decimal(row[column]) for row in found), decimal.Decimal(0))


def check_sums(months):
    known = invoices()
    assert len(known) == MONTHS, known
    for month in months:
        for version in ("1.2", "1.4"):
            found = rows(export(month, version=version))
            assert not [row for row in found if row["InvoiceId"] == ""], "a row of an issued month has no number"
            for number in {row["InvoiceId"] for row in found}:
                mine = [row for row in found if row["InvoiceId"] == number]
                assert total(mine) == gross(known[number]), number
        usage = [row for row in found if row["ChargeCategory"] == "Usage"]
        charges = rows(export(month, dataset="charges"))
        assert len(charges) == sum(int(row["x_ChargeCount"]) for row in usage) > len(usage) > 0
        assert total(charges, "amount") == total(usage)
        for row in usage:
            product = decimal.Decimal(row["ListUnitPrice"]) * decimal.Decimal(row["PricingQuantity"])
            assert abs(product - decimal.Decimal(row["ListCost"])) < decimal.Decimal("1e-12"), row
    # The month that runs has no number, and nothing of an earlier one.
    running = rows(export(now()))
    assert running and not [row for row in running if row["InvoiceId"]]
    everybody = list(csv.DictReader(io.StringIO(ask("GET", f"/operator/v1/billing/export?period={months[0]}", OPERATOR)[0].decode())))
    assert [row for row in everybody if row["InvoiceId"]] == rows(export(months[0]))


def check_credit(months):
    number, invoice = next(iter(sorted(invoices().items(), reverse=True)))
    amount = invoice["total"]["amount"]
    if decimal.Decimal(amount) == 0:
        raise AssertionError("nothing was invoiced that could be taken back")
    body = {"amount": {"amount": amount, "currency": invoice["total"]["currency"]}, "kind": "paid", "reason": "slow, \"very\" slow"}
    note = json.loads(ask("POST", f"/operator/v1/invoices/{invoice['id']}/credit_notes", OPERATOR, body)[0])
    credits = [row for row in rows(export(now())) if row["ChargeCategory"] == "Credit"]
    details = rows(export(now(), dataset="invoice-detail"))
    assert {row["ReferenceInvoiceId"] for row in details} == {number} and {row["InvoiceId"] for row in details} == {note["number"]}
    assert total(details) == -decimal.Decimal(amount) - decimal.Decimal(note["tax"]["amount"])
    status, said = toolkit_says(export(now(), dataset="invoice-detail"), "invoice-detail")
    assert status == 0, said[-2000:]
    _, problems = together([*months, now()])
    assert not problems, problems
    said = [(row["InvoiceId"], row["BilledCost"], row["ChargeClass"], row["x_CreditedInvoiceId"]) for row in credits]
    assert [(said[0][0], decimal.Decimal(said[0][1]), *said[0][2:])] == [(note["number"], -decimal.Decimal(amount), "Correction", number)], said
    assert len(said) == 1 and body["reason"] in credits[0]["ChargeDescription"]


def check_supporting(months):
    """Documents, commitments and months are those that the API has, and use names them."""
    known = invoices()
    for month in months:
        details, costs = rows(export(month, dataset="invoice-detail")), rows(export(month, version="1.4"))
        assert {row["InvoiceId"] for row in details} == {row["InvoiceId"] for row in costs}
        for number in {row["InvoiceId"] for row in details}:
            assert total(row for row in details if row["InvoiceId"] == number) == gross(known[number]), number
        for line in details:
            mine = [row for row in costs if row["InvoiceDetailId"] == line["InvoiceDetailId"]]
            assert mine and total(mine) == decimal.Decimal(line["BilledCost"]), line
        [period] = rows(export(month, dataset="billing-period"))
        said = period["BillingPeriodStatus"], period["x_State"], period["x_BillingPeriod"]
        assert said == ("Closed", "invoiced", month) and period["x_InvoiceId"] in known
        used = applied(costs)
        for commitment in rows(export(month, dataset="contract-commitment")):
            if commitment["ContractCommitmentId"] in used:
                assert used[commitment["ContractCommitmentId"]] == decimal.Decimal(commitment["x_UsedCost"]), commitment
    # The first month only has the fee of the next one, which has a commitment.
    categories = {row["ChargeCategory"] for row in details}
    assert used and categories == {"Usage", "Adjustment", "Tax"}, (used, categories)
    [running] = rows(export(now(), dataset="billing-period"))
    assert running["BillingPeriodStatus"] == "Open" and not rows(export(now(), dataset="invoice-detail"))


def applied(costs):
    """What rows count towards each commitment; their numbers are read as decimals."""
    sums = {}
    for row in costs:
        for element in json.loads(row["ContractApplied"] or '{"Elements": []}', parse_float=decimal.Decimal)["Elements"]:
            name = element["ContractCommitmentId"]
            sums[name] = sums.get(name, decimal.Decimal(0)) + element["ContractCommitmentAppliedCost"]
    return {name: used for name, used in sums.items() if used}


def as_text(value):
    if value is None:
        return ""
    if isinstance(value, decimal.Decimal):
        text = format(value, "f").rstrip("0")
        return text + "0" if text.endswith(".") else text
    return value.strftime("%Y-%m-%dT%H:%M:%SZ") if hasattr(value, "strftime") else str(value)


def check_parquet(months):
    supporting = [("1.4", dataset) for dataset in SUPPORTING]
    for version, dataset in [*supporting, ("1.2", "focus"), ("1.4", "focus"), ("1.2", "charges")]:
        for month in [*months, now()]:
            path = export(month, "parquet", version, dataset)
            table = pyarrow.parquet.read_table(path)
            found = [{name: as_text(value) for name, value in row.items()} for row in table.to_pylist()]
            assert found == rows(export(month, "csv", version, dataset)), "Parquet and CSV differ"
            if dataset == "focus":
                kinds = {name: str(table.schema.field(name).type) for name in ("BilledCost", "ChargePeriodStart", "Tags")}
                expected = {"BilledCost": "decimal128(38, 15)", "ChargePeriodStart": "timestamp[us, tz=UTC]", "Tags": "string"}
                assert kinds == expected, kinds
                assert not table.schema.field("BilledCost").nullable and table.schema.field("InvoiceId").nullable
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    wrong = OUT / "wrong.parquet"
    wrong.write_bytes(content[:-20] + content[-8:])
    try:
        pyarrow.parquet.read_table(wrong)
    except (pyarrow.ArrowException, OSError):
        return
    raise AssertionError("pyarrow reads anything")


def changed(path, name, change):
    """A copy with a change of every row."""
    found = rows(path)
    for row in found:
        change(row)
    wrong = OUT / name
    with wrong.open("w", newline="") as file:
        writer = csv.DictWriter(file, found[0].keys() if found[0] else [])
        writer.writeheader()
        writer.writerows(found)
    return wrong


def validator_says(path):
    """The rules of FOCUS 1.2 that a file breaks, and how many it keeps. Its exit status says nothing."""
    home = pathlib.Path(focus_validator.__file__).parent.parent
    command = [PROGRAMS / "focus-validator", "--data-file", path, "--validate-version", "1.2", "--block-download"]
    command += ["--applicability-criteria", ",".join(CRITERIA)]
    done = subprocess.run(list(map(str, command)), cwd=home, capture_output=True, text=True, timeout=300)
    said = re.findall(r"^\S+ ([A-Za-z]+-[A-Z]+-\d+-[A-Z]): (PASS|FAIL)", done.stdout, re.MULTILINE)
    assert said, done.stdout[-2000:] + done.stderr[-2000:]
    return {rule for rule, verdict in said if verdict == "FAIL"}, sum(verdict == "PASS" for _, verdict in said)


def check_1_2(months):
    for month in [months[0], now()]:
        path = export(month)
        broken, kept = validator_says(path)
        assert not broken - IMPOSSIBLE, broken - IMPOSSIBLE
        assert kept > 250, f"only {kept} rules were looked at"
    for name, change, rule in [
        ("no-cost", lambda row: row.update(BilledCost=""), "BilledCost-C-003-M"),
        ("other-category", lambda row: row.update(ChargeCategory="Gift"), "ChargeCategory-C-003-M"),
        ("no-provider", lambda row: row.pop("ProviderName"), "ProviderName-C-000-M"),
    ]:
        broken, _ = validator_says(changed(path, f"{name}.csv", change))
        assert [found for found in broken if found.startswith(rule.split("-")[0])], f"focus-validator does not see {name}: {broken}"


def toolkit_says(path, dataset="cost-and-usage"):
    command = [PROGRAMS / "focus-toolkit", "validate", path, "--dataset", dataset]
    for condition in SUPPORTS if dataset == "cost-and-usage" else []:
        command += ["--supports", condition]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def check_1_4(months):
    for month in [*months, now()]:
        for form in ("csv", "parquet"):
            path = export(month, form, "1.4")
            status, said = toolkit_says(path)
            assert status == 0, said[-2000:]
    path = export(months[0], "csv", "1.4")
    for name, change in [
        ("no-seller", lambda row: row.pop("ServiceProviderName")),
        ("other-product", lambda row: row.update(ListCost="1000.0")),
        ("local-time", lambda row: row.update(ChargePeriodStart="2026-11-01T00:00:00")),
        ("own-column", lambda row: row.update(Discount="1")),
    ]:
        status, said = toolkit_says(changed(path, f"{name}.csv", change))
        assert status != 0, f"focus-data-toolkit accepts {name}: {said[-500:]}"


def check_supporting_1_4(months):
    for dataset in SUPPORTING:
        for month in [*months, now()]:
            for form in ("csv", "parquet"):
                path = export(month, form, dataset=dataset)
                # What is open has no documents, and the toolkit takes no file without rows.
                if rows(export(month, dataset=dataset)):
                    status, said = toolkit_says(path, dataset)
                    assert status == 0, said[-2000:]
    for dataset, name, change in [
        ("billing-period", "other-status", lambda row: row.update(BillingPeriodStatus="Invoiced")),
        ("billing-period", "updated-before", lambda row: row.update(BillingPeriodLastUpdated="2020-01-01T00:00:00Z")),
        ("invoice-detail", "no-reference", lambda row: row.update(ReferenceInvoiceId="")),
        ("invoice-detail", "own-grain", lambda row: row.update(InvoiceDetailGrain='{"Part":"tax"}')),
        ("contract-commitment", "own-scope", lambda row: row.update(ContractCommitmentApplicability='{"Inclusions":[]}')),
        ("contract-commitment", "other-status", lambda row: row.update(ContractCommitmentLifecycleStatus="Running")),
        ("contract-commitment", "no-id", lambda row: row.pop("ContractCommitmentId")),
    ]:
        path = export(months[-1], dataset=dataset)
        status, said = toolkit_says(changed(path, f"{dataset}-{name}.csv", change), dataset)
        assert status != 0, f"focus-data-toolkit accepts {dataset} with {name}: {said[-500:]}"


def together(months, **instead):
    """What the toolkit says of all datasets of some months: problems by their code. Contracts are those of the last."""
    bundle = {"Cost and Usage": [row for month in months for row in rows(export(month, version="1.4"))]}
    for dataset, name in SUPPORTING.items():
        mine = months[-1:] if dataset == "contract-commitment" else months
        bundle[name] = [row for month in mine for row in rows(export(month, dataset=dataset))]
    bundle.update(instead)
    report = validate_dataset_bundle(bundle, invoice_detail_authoritative=True, rounding_tolerance=decimal.Decimal(0))
    assert "reconcile_invoice_detail" in report.checks_run, report.checks_run
    return bundle, {problem.code for problem in [*report.errors, *report.warnings]}


def check_together(months):
    bundle, problems = together(months)
    assert not problems, problems
    for dataset, column, value, code in [
        ("Cost and Usage", "InvoiceDetailId", "INV-2026-000001/999", "FDT-CROSS-014"),
        ("Invoice Detail", "ChargeCategory", "Credit", "FDT-CROSS-015"),
        ("Invoice Detail", "BilledCost", "0.000000001", "FDT-CROSS-030"),
        ("Billing Period", "BillingPeriodEnd", "2026-01-01T00:00:00Z", "FDT-CROSS-040"),
        ("Contract Commitment", "ContractCommitmentId", "ctr_other/1", "FDT-CROSS-010"),
    ]:
        wrong = [{**row, column: value} for row in bundle[dataset]]
        _, found = together(months, **{dataset: wrong})
        assert code in found, f"focus-data-toolkit does not see another {column}: {found}"


def check_refusals():
    for query, says in [
        ("dataset=focus&version=1.3", "1.2 or 1.4"),
        ("format=xlsx", "csv or parquet"),
        ("dataset=invoices", "invoice-detail"),
        ("dataset=billing-period&version=1.2", "FOCUS 1.4 alone"),
        ("period=2026-13", "like 2026-03"),
        ("period=2199-01", "the newest month is"),
        ("dataset=charges&version=1.2", "has no version"),
    ]:
        try:
            ask("GET", f"/v1/organization/billing/export?{query}", ADMIN)
        except urllib.error.HTTPError as refused:
            text = refused.read().decode()
            assert refused.code == 400 and says in text, (query, refused.code, text)
        else:
            raise AssertionError(f"{query} was accepted")


def main():
    months = live_through_months()
    checks = [
        ("rows add up to invoices and charges to the last digit", lambda: check_sums(months)),
        ("documents, commitments and months are those of the API, and use names them", lambda: check_supporting(months)),
        ("a credit note is a row of its own number", lambda: check_credit(months)),
        ("pyarrow reads from Parquet what CSV says", lambda: check_parquet(months)),
        ("focus-validator accepts FOCUS 1.2, and nothing else", lambda: check_1_2(months)),
        ("focus-data-toolkit accepts FOCUS 1.4, and nothing else", lambda: check_1_4(months)),
        ("focus-data-toolkit accepts what is beside it, and nothing else", lambda: check_supporting_1_4(months)),
        ("all datasets of 1.4 fit together, and no others", lambda: check_together(months)),
        ("what cannot be exported is refused with what would work", check_refusals),
    ]
    return judge(checks)


if __name__ == "__main__":
    sys.exit(main())
