"""Asks every route of the cloud for what its document says, and for what it does not.

Usage: openapi.py. Reads the environment that every suite has; SUBLET_OPENAPI_EXAMPLES says how many
requests each route gets at most beyond those at the ends of its ranges (4), SUBLET_OPENAPI_SEED which (1).
"""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

HERE = Path(__file__).parent
OUT = Path(os.environ["SUBLET_OUT"])
BASE = os.environ["SUBLET_API_BASE"].removesuffix("/v1")
EXAMPLES = os.environ.get("SUBLET_OPENAPI_EXAMPLES", "4")
SEED = os.environ.get("SUBLET_OPENAPI_SEED", "1")
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "is_let_in",
    "carries_a_request_id",
    "fails_in_its_own_shape",
    "opens_with_keys_of_its_plane_only",
]
# A run in which fewer routes do what they are for says nothing.
ROUTES_THAT_WORK_MIN = 60


def check(name, good, words=""):
    print(f"ok {name}" if good else f"FAIL {name}: {' '.join(words.split())[:600]}")
    return good


def run():
    report, answers, log = OUT / "openapi.xml", OUT / "openapi-answers.json", OUT / "openapi.log"
    for file in (report, answers):
        file.unlink(missing_ok=True)
    command = [
        Path(sys.executable).parent / "schemathesis", "run", f"{BASE}/openapi.json",
        "--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES, "--seed", SEED,
        "--generation-database", "none", "--checks", ",".join(CHECKS), "--continue-on-failure", "--no-shrink",
        "--request-timeout", "60", "--suppress-health-check", "all", "--warnings", "off", "--no-color",
        "--report", "junit", "--report-junit-path", report,
    ]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "openapi_hooks", "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"}
    with log.open("wb") as output:
        ended = subprocess.run(command, env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=OUT)
    if not check("schemathesis ran to its end", report.exists() and answers.exists(), f"see {log}"):
        return False
    good = True
    for case in ElementTree.parse(report).iter("testcase"):
        failures = [*case.iter("failure"), *case.iter("error")]
        words = " | ".join(failure.get("message") or failure.text or "" for failure in failures)
        good &= check(case.get("name"), not failures, words)
    working = sum("2xx" in kinds for kinds in json.loads(answers.read_text()).values())
    good &= check("routes do what they are for", working >= ROUTES_THAT_WORK_MIN, f"only {working} of them")
    return check("schemathesis found nothing", ended.returncode == 0, f"see {log}") and good


sys.exit(0 if run() else 1)
