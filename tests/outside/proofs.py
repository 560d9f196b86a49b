"""Has other people's programs judge what Sublet proves: the trees, the signatures, and the sums.

Usage: proofs.py. Reads the environment that every suite has, of a cloud with a test clock; SUBLET_BINARY is the
program, and SUBLET_OUT a folder to write into. Trees are built by pymerkle, paths judged by sigstore, signatures by
cryptography and cwt, canonical JSON by rfc8785, and invoices are added up again by rerate.py.
"""

import base64
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import types

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
import cbor2
import rfc8785
from cwt import COSE, COSEKey
from pymerkle import InmemoryTree
from pymerkle import verify_consistency as pymerkle_consistency
from sigstore._internal.merkle import verify_merkle_inclusion
from sigstore.errors import VerificationError

import rerate
from cloud import ADMIN, OPERATOR, PROJECT, ask, chat, eventually, judge, see, to_next_month

BINARY, OUT = os.environ["SUBLET_BINARY"], pathlib.Path(os.environ["SUBLET_OUT"])
MONTHS, CALLS = 3, 6


def charges_of(request):
    return see(f"/v1/organization/billing/charges?request={request}", ADMIN)["data"]


def live_through_months():
    """Uses the cloud for some months. What each request is called."""
    requests = []
    for _ in range(MONTHS):
        mine = [chat(1 + call) for call in range(CALLS)]
        eventually("the charges", lambda: all(charges_of(request) for request in mine))
        requests += mine
        to_next_month()
    return requests


def entry_of(body, index, size, hashes, root):
    """What sigstore judges, in its shape."""
    proof = types.SimpleNamespace(log_index=index, tree_size=size, hashes=hashes, root_hash=root)
    return types.SimpleNamespace(_inner=types.SimpleNamespace(inclusion_proof=proof, canonicalized_body=body))


def judge_path(body, index, size, hashes, root):
    verify_merkle_inclusion(entry_of(body, index, size, hashes, root))
    for wrong in (entry_of(body + b" ", index, size, hashes, root), entry_of(body, index, size, hashes, hashlib.sha256(root).digest())):
        try:
            verify_merkle_inclusion(wrong)
        except VerificationError:
            continue
        raise AssertionError("sigstore's judge accepts anything")


def unpack(hashes):
    return [base64.b64decode(text) for text in hashes]


def checkpoint(note, key):
    """The size and root of a signed note, whose signature is judged by cryptography."""
    name, key_id, public = key.strip().split("+", 2)
    public = base64.b64decode(public)
    assert public[0] == 1, "the key is Ed25519"
    assert hashlib.sha256(name.encode() + b"\n" + public).digest()[:4].hex() == key_id
    text, _, signatures = note.partition("\n\n")
    prefix = f"— {name} "
    signature = next(base64.b64decode(line[len(prefix):]) for line in signatures.splitlines() if line.startswith(prefix))
    assert signature[:4].hex() == key_id
    verifier = Ed25519PublicKey.from_public_bytes(public[1:])
    verifier.verify(signature[4:], (text + "\n").encode())
    try:
        verifier.verify(signature[4:], (text + " \n").encode())
    except InvalidSignature:
        pass
    else:
        raise AssertionError("the judge of signatures accepts anything")
    origin, size, root = text.split("\n")
    assert origin == name
    return int(size), base64.b64decode(root)


def judge_log(proof, seal, key):
    size, root = checkpoint(proof["checkpoint"], key)
    judge_path(hashlib.sha256(rfc8785.dumps(seal)).digest(), proof["index"], size, unpack(proof["path"]), root)


def bundles():
    """Every issued invoice's bundle, as a file."""
    paths = []
    for invoice in see("/v1/organization/billing/invoices?limit=100", ADMIN)["data"]:
        if invoice["number"]:
            path = OUT / f"{invoice['number']}.bundle"
            path.write_bytes(ask("GET", f"/v1/organization/billing/invoices/{invoice['id']}/bundle", ADMIN)[0])
            paths.append(path)
    return sorted(paths)


def sublet(*arguments):
    return subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True, timeout=60)


def check_trees(paths, key):
    for path in paths:
        bundle = rerate.Bundle(path)
        tree = InmemoryTree(algorithm="sha256")
        for text in bundle.texts:
            tree.append_entry(text.encode())
        header, _, _ = path.read_bytes().partition(b"\n")
        for text in [header, *(text.encode() for text in bundle.texts)]:
            assert rfc8785.dumps(json.loads(text)) == text, "not the canonical form of RFC 8785"
        seal = bundle.header["seal"]
        assert tree.get_root() == base64.b64decode(seal["root"]), "pymerkle has another root"
        assert tree.get_size() == seal["leaves"]
        judge_log(bundle.header["log"], seal, key)


def judge_cose(receipt, proof, root, key):
    """A COSE receipt (RFC 9942), whose signature and form are judged by cwt."""
    public = base64.b64decode(key.strip().split("+", 2)[2])[1:]
    name = key.split("+", 1)[0]
    verifier = COSEKey.new({1: 1, -1: 6, -2: public, 2: name.encode(), 3: -8})
    assert COSE.new().decode(receipt, verifier, detached_payload=root) == root
    try:
        COSE.new().decode(receipt, verifier, detached_payload=hashlib.sha256(root).digest())
    except Exception:  # Whatever its refusal is called.
        pass
    else:
        raise AssertionError("cwt accepts anything")
    protected, unprotected, payload, _ = cbor2.loads(receipt).value
    assert payload is None and cbor2.loads(protected)[395] == 1, "it is over a tree of RFC 9162"
    size, index, path = cbor2.loads(unprotected[396][-1][0])
    assert (size, index, list(path)) == (proof["seal"]["leaves"], proof["index"], unpack(proof["path"]))


def check_receipts(requests, key):
    count = 0
    for request in requests:
        for receipt in see(f"/v1/receipts/{request}", PROJECT)["data"]:
            proof = json.loads(receipt["receipt"])
            leaf, seal = proof["leaf"].encode(), proof["seal"]
            assert json.loads(leaf)["source"] == request
            judge_path(leaf, proof["index"], seal["leaves"], unpack(proof["path"]), base64.b64decode(seal["root"]))
            judge_cose(base64.b64decode(proof["cose"]), proof, base64.b64decode(seal["root"]), key)
            judge_log(proof["log"], seal, key)
            count += 1
    assert count >= len(requests), f"{count} receipts"


def check_sums(paths):
    total = 0
    for path in paths:
        bundle = rerate.Bundle(path)
        bundle.rerate()
        total += rerate.nanos(bundle.content["subtotal"])
    charges, after = [], ""
    while True:
        page = see(f"/v1/organization/billing/charges?limit=100{after}", ADMIN)
        charges += page["data"]
        if not page["has_more"]:
            break
        after = f"&after={page['last_id']}"
    assert total == sum(rerate.nanos(charge["amount"]["amount"]) for charge in charges), "the invoices are not the charges"
    # The judge itself has to find what is wrong.
    bundle.leaves[0]["amount"] = "1"
    try:
        bundle.rerate()
    except rerate.Wrong:
        return
    raise AssertionError("the re-rater accepts anything")


def check_tiles(key):
    """The log as anybody reads it: its entries, and what pymerkle makes of them."""
    size, root = checkpoint(ask("GET", "/log/checkpoint")[0].decode(), key)
    assert size == MONTHS, f"the log has {size} entries"
    entries, _ = ask("GET", f"/log/tile/entries/000.p/{size}")
    hashes, headers = ask("GET", f"/log/tile/0/000.p/{size}")
    assert headers["content-type"] == "application/octet-stream"
    tree, states = InmemoryTree(algorithm="sha256"), []
    while entries:
        length = int.from_bytes(entries[:2], "big")
        entry, entries = entries[2 : 2 + length], entries[2 + length :]
        assert hashlib.sha256(b"\0" + entry).digest() == hashes[32 * len(states) : 32 * len(states) + 32]
        tree.append_entry(entry)
        states.append(tree.get_root())
    assert tree.get_root() == root, "pymerkle has another root"
    for earlier in range(1, size + 1):
        pymerkle_consistency(states[earlier - 1], root, tree.prove_consistency(earlier, size))


def check_program(paths, key):
    known = OUT / "log.key"
    known.write_text(key)
    for path in paths:
        done = sublet("verify-invoice", path, "--log-key", known)
        assert done.returncode == 0 and "add up to" in done.stdout, done.stderr
    content = bytearray(paths[0].read_bytes())
    content[-10] ^= 1
    wrong = OUT / "wrong.bundle"
    wrong.write_bytes(content)
    leaves = content.count(b"\n") - 1
    done = sublet("verify-invoice", wrong, "--log-key", known)
    assert done.returncode == 1 and f"leaf {leaves - 1} is wrong" in done.stderr, (done.returncode, done.stderr)


def main():
    requests = live_through_months()
    key = ask("GET", "/log/key")[0].decode()
    paths = bundles()
    assert len(paths) == MONTHS, paths
    checks = [
        ("pymerkle builds the same trees; rfc8785, sigstore and cryptography accept every seal", lambda: check_trees(paths, key)),
        ("sigstore and cwt accept every receipt, and nothing else", lambda: check_receipts(requests, key)),
        ("every invoice adds up again in exact fractions", lambda: check_sums(paths)),
        ("the log is what its tiles say, and only grew", lambda: check_tiles(key)),
        ("verify-invoice accepts true bundles and names a wrong leaf", lambda: check_program(paths, key)),
    ]
    return judge(checks)


if __name__ == "__main__":
    sys.exit(main())
