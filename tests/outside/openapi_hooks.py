"""What Schemathesis is told of this cloud: whose key opens a route, what exists, and what every answer has.

Deliberately absent: known failures. A check that fails is mended in the cloud or in its document.
"""

import atexit
import itertools
import json
import os

import requests
import schemathesis

BASE = os.environ["SUBLET_API_BASE"].removesuffix("/v1")
KEYS = {
    "project": os.environ["SUBLET_PROJECT_KEY"],
    "organization": os.environ["SUBLET_ADMIN_KEY"],
    "operator": os.environ["SUBLET_OPERATOR_KEY"],
}
MODEL = os.environ["SUBLET_MODEL"]
ASKS_A_MODEL = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/responses/input_tokens",
                "/v1/messages", "/v1/messages/count_tokens")
ANTHROPIC = ("/v1/messages", "/v1/messages/count_tokens")
# Answers of models are kept short: most of a run should be other requests.
LENGTHS = {
    "/v1/chat/completions": "max_tokens",
    "/v1/completions": "max_tokens",
    "/v1/responses": "max_output_tokens",
    "/v1/messages": "max_tokens",
}

# Every other request to a model names one that is there.
TURNS = itertools.count()
# Routes that were asked with the keys of other planes, and what came of all requests.
ASKED_WITH_OTHERS = set()
ANSWERS = {}


def plane_of(operation):
    tags = operation.definition.raw.get("tags", [])
    return next((tag for tag in tags if tag in KEYS), None)


def is_documented(case):
    """Routes are asked with methods that they do not have, too."""
    return case.method.upper() == case.operation.method.upper()


def existing():
    """Ids of what there is when the run begins: what it works with itself."""
    found = set()
    for plane, paths in {
        "organization": ["/v1/organization/projects", "/v1/organization/users", "/v1/organization/admin_api_keys"],
        "operator": ["/operator/v1/organizations"],
    }.items():
        for path in paths:
            found.update(listed(plane, path))
    for project in listed("organization", "/v1/organization/projects"):
        found.update(listed("organization", f"/v1/organization/projects/{project}/api_keys"))
    return found


def listed(plane, path):
    answer = requests.get(BASE + path, headers={"authorization": f"Bearer {KEYS[plane]}"}, timeout=30)
    return [item["id"] for item in answer.json().get("data", [])] if answer.ok else []


EXISTING = existing()


def ask_a_model(path, body):
    """Names a model that is served, in the place of one that is not, and asks for little."""
    body["model"] = MODEL
    if path in LENGTHS:
        body[LENGTHS[path]] = 3
    for message in body.get("messages") if isinstance(body.get("messages"), list) else []:
        if isinstance(message, dict) and isinstance(message.get("role"), str):
            message["role"] = "user"


@schemathesis.hook
def before_call(context, case, kwargs):
    """The key; and nothing that takes away what the run itself works with."""
    plane = plane_of(case.operation)
    if plane is not None:
        case.headers["Authorization"] = f"Bearer {KEYS[plane]}"
    if case.method.upper() != "GET":
        for name, value in case.path_parameters.items():
            if value in EXISTING:
                case.path_parameters[name] = value.split("_")[0] + "_0"
    if case.operation.path in ASKS_A_MODEL and isinstance(case.body, dict) and next(TURNS) % 2:
        ask_a_model(case.operation.path, case.body)
    limited = "spend_limits" in case.operation.path and isinstance(case.body, dict)
    if limited and isinstance(case.body.get("amount"), dict):
        case.body["amount"]["amount"] = "1000000"


@schemathesis.check
def is_let_in(ctx, response, case):
    """The right key is taken: otherwise the run would say nothing."""
    assert response.status_code != 401, response.text[:300]


@schemathesis.check
def carries_a_request_id(ctx, response, case):
    """Whatever the answer is, it can be asked about."""
    value = response.headers.get("x-request-id", [""])[0]
    assert value.startswith("req_"), f"x-request-id is {value!r}"


@schemathesis.check
def fails_in_its_own_shape(ctx, response, case):
    """An error is the caller's, and has the shape that clients of the route read."""
    status = response.status_code
    if status < 400:
        return
    # 501 and above 503 are about servers elsewhere, which this cloud has none of; 503 is a full queue.
    assert status < 500 or status == 503, f"status {status}: {response.text[:500]}"
    # Nobody who asks for HEAD or speaks no HTTP reads a body.
    if case.method.upper() == "HEAD":
        return
    body = json.loads(response.text)
    if case.operation.path in ANTHROPIC:
        assert body["type"] == "error", body
        assert isinstance(body["error"]["type"], str) and body["error"]["message"], body
        return
    error = body["error"]
    assert isinstance(error["message"], str) and error["message"], body
    assert isinstance(error["type"], str), body
    assert isinstance(error["code"], str), body
    assert error.get("param") is None or isinstance(error["param"], str), body
    assert error["request_id"] == response.headers["x-request-id"][0], body


@schemathesis.check
def opens_with_keys_of_its_plane_only(ctx, response, case):
    """A key of another plane opens nothing; asked once for each route."""
    plane, route = plane_of(case.operation), (case.method, case.operation.path)
    if plane is None or route in ASKED_WITH_OTHERS or not is_documented(case):
        return
    ASKED_WITH_OTHERS.add(route)
    for other in (key for name, key in KEYS.items() if name != plane):
        headers = {"authorization": f"Bearer {other}"}
        answer = requests.request(case.method, response.request.url, headers=headers, timeout=30)
        assert answer.status_code in (401, 403), f"status {answer.status_code} for the key of another plane"
        assert answer.headers["x-request-id"].startswith("req_") and answer.json()["error"]["message"]


@schemathesis.hook
def after_call(context, case, response):
    """What came of how many requests, so that a run that meets nothing but refusals is seen."""
    if not is_documented(case):
        return
    kind = f"{response.status_code // 100}xx"
    route = ANSWERS.setdefault(f"{case.method} {case.operation.path}", {})
    route[kind] = route.get(kind, 0) + 1


@atexit.register
def write_answers():
    with open(os.path.join(os.environ["SUBLET_OUT"], "openapi-answers.json"), "w") as file:
        json.dump(ANSWERS, file, indent=1, sort_keys=True)
