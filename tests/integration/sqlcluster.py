"""What the tests of sql/ share: a session that remembers what PostgreSQL said."""

import json

import psycopg2


class Session:
    """One connection. `one()` gives a value, `refused()` what an error said, `said` the notices.

    With keep=False all is one transaction that is rolled back in the end, roles included: tests can share a database,
    which is much quicker than a copy for each.
    """

    def __init__(self, database, user="postgres", keep=True):
        self.connection = database.connect(user)
        self.keep = keep
        if not keep:
            self.run("BEGIN")

    def close(self):
        if not self.keep:
            self.run("ROLLBACK")
        self.connection.close()

    def run(self, text, *parameters):
        del self.connection.notices[:]
        with self.connection.cursor() as cursor:
            cursor.execute(text, parameters or None)
            return cursor.fetchall() if cursor.description else None

    def one(self, text, *parameters):
        return self.run(text, *parameters)[0][0]

    def column(self, text, *parameters):
        return [row[0] for row in self.run(text, *parameters)]

    def refused(self, text, *parameters):
        """Runs what must fail; the message of one line and the hint."""
        if not self.keep:
            self.run("SAVEPOINT before")
        try:
            self.run(text, *parameters)
        except psycopg2.Error as error:
            if not self.keep:
                self.run("ROLLBACK TO before")
            assert "\n" not in error.diag.message_primary
            return error.diag.message_primary, error.diag.message_hint
        raise AssertionError(f"was not refused: {text}")

    @property
    def said(self):
        return "".join(self.connection.notices)

    def catalog(self):
        return json.loads(self.one("SELECT composure.catalog()"))

    def resource(self, name):
        return {r["name"]: r for r in self.catalog()["resources"]}[name]
