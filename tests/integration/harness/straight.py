"""A client that asks a worker without a web server between, over one kept connection: fast, and any bytes in the URL."""

import json


class Straight:
    def __init__(self, workers, key):
        self.connection = workers.fcgi()
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}

    def close(self):
        self.connection.close()

    def get(self, uri, method="GET", **headers):
        """An answer: .status .headers (names in lower case) .body .json"""
        given = {**self.headers, **{k.replace("_", "-"): v for k, v in headers.items()}}
        answer = self.connection.ask(method, uri, given)
        is_json = "json" in answer.head and "x-ndjson" not in answer.head
        answer.json = json.loads(answer.body) if is_json and answer.body else None
        return answer

    def link(self, answer, rel):
        """The URI of that relation in an answer's Link, or None."""
        for part in answer.headers.get("link", "").split(", <"):
            uri, _, said = part.lstrip("<").partition(">; rel=")
            if said.strip('"') == rel:
                return uri
        return None
