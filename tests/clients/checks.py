"""What the suites of Python clients share: a list of checks, and how they are run and reported."""

import sys
import time

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def same(got, want, what):
    assert got == want, f"{what}: got {got!r}, want {want!r}"


def settled(look, missing, request):
    """The usage of a request as soon as it is settled; until then `look` raises `missing`."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return look()
        except missing:
            assert time.monotonic() < deadline, f"{request} is not settled after 20 s"
            time.sleep(0.1)


def main():
    """Prints `ok NAME` or `FAIL NAME: why` per check; the exit status is 0 only if all passed."""
    failed = 0
    for function in CHECKS:
        try:
            function()
            print(f"ok {function.__name__}", flush=True)
        except Exception as error:  # one failing check must not hide the others
            failed += 1
            print(f"FAIL {function.__name__}: {type(error).__name__}: {error}", flush=True)
    sys.exit(1 if failed else 0)
