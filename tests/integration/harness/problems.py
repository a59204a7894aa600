"""What every error of the API has to be."""

import re

# What PostgreSQL, libpq or this machine would say, and a client must not see.
LEAKS = re.compile(
    r"(?i:sqlstate|syntax error|pg_catalog|relation \"|constraint \"|violates|duplicate key|composure_worker|libpq|"
    r"invalid input syntax|/tmp/|/dev/|/var/|/usr/|password)|\bSELECT\b|\bINSERT\b|CONTEXT:|HINT:|DETAIL:")


def is_problem(answer, status, code=None):
    """Asserts that it is one, and gives it back."""
    assert answer.status == status, answer
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert int(answer.headers["Content-Length"]) == len(answer.body)
    problem = answer.json
    assert problem["status"] == status and problem["title"] and problem["type"]
    assert problem["instance"] == "urn:uuid:" + answer.headers["X-Request-Id"]
    assert re.fullmatch(r"[a-z_]+", problem["code"])
    if code is not None:
        assert problem["code"] in (code if isinstance(code, tuple) else (code,)), problem
    assert not LEAKS.search(answer.body.decode()), answer
    if status == 401:
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    if status == 405:
        assert answer.headers["Allow"]
    return problem
