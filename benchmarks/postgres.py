"""PostgreSQL as a contender of bench_switch, where its server is installed: a table with a GIN index over a tsvector.

It rebuilds by `pg_repack` when that is installed, else by `REINDEX INDEX CONCURRENTLY`. Both do the whole rebuild, not
only the switch. Neither reports how long writers are kept out, so only the stalls are measured. Clients are `psql`
processes, one for each thread, on a Unix socket; every write is its own durable transaction.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

from benchmarks.common import TYPE, fill_values, record
from benchmarks.contenders import key_of, words
from benchmarks.ledger import Key, Ledger

DATABASE, PORT = "postgres", "54329"
START_S = 30.0
SCHEMA = """
CREATE SEQUENCE lsns;
CREATE TABLE docs(id text PRIMARY KEY, lsn bigint NOT NULL, body text NOT NULL,
    words tsvector GENERATED ALWAYS AS (to_tsvector('english', body)) STORED);
CREATE INDEX docs_words ON docs USING gin(words);
"""
WRITE = """INSERT INTO docs(id, lsn, body) VALUES('{id}', nextval('lsns'), '{body}') ON CONFLICT(id) DO UPDATE
    SET lsn = EXCLUDED.lsn, body = EXCLUDED.body WHERE docs.lsn < EXCLUDED.lsn RETURNING lsn"""
SEARCH = """SELECT id FROM docs, plainto_tsquery('english', '{query}') AS query WHERE words @@ query
    ORDER BY ts_rank(words, query) DESC LIMIT 10"""
END = "end-of-answer"


def server_binaries() -> Path | None:
    """The folder of the newest installed server, or None."""
    if shutil.which("psql") is None:
        return None
    installed = [path.parent for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))]
    found = shutil.which("initdb")
    return installed[-1] if installed else Path(found).parent if found else None


class Session:
    """One psql process. One thread."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
        )

    def ask(self, sql: str) -> list[str]:
        """The lines of the answer. Raises RuntimeError for an error of the server."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{' '.join(sql.split())};\n\\echo {END}\n")
        lines = []
        while (line := self._process.stdout.readline().rstrip("\n")) != END:
            lines.append(line)
            if "ERROR:" in line or "FATAL:" in line or (not line and self._process.poll() is not None):
                raise RuntimeError(f"psql: {' '.join(lines)[:500]}")
        return lines

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=30)


class Postgres:
    """A server of its own, in a folder of its own."""

    def __init__(self, folder: Path, records: int) -> None:
        binaries = server_binaries()
        assert binaries is not None
        self._binaries, self._folder, self._records = binaries, folder, records
        self._repack = shutil.which("pg_repack") or shutil.which("pg_repack", path=str(binaries))
        self.name = f"PostgreSQL, {'pg_repack' if self._repack else 'REINDEX CONCURRENTLY'}"
        self.ledger = Ledger()
        self._local = threading.local()
        self._sessions: list[Session] = []
        self._user = "postgres" if os.getuid() == 0 else None
        if self._user:  # the server refuses to run as root
            shutil.chown(folder, self._user)
        self._server("initdb", "-D", str(folder / "pg"), "-A", "trust", "-U", "bench", "-E", "UTF8")
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(
            [str(binaries / "postgres"), "-D", str(folder / "pg"), "-p", PORT, "-k", str(folder), "-h", ""],
            user=self._user,
            cwd=folder,
            stdout=self._log,
            stderr=self._log,
        )
        try:
            self._wait()
            self._load(records)
        except BaseException:
            self.close()
            raise

    def _wait(self) -> None:
        deadline = time.monotonic() + START_S
        command = ["psql", "-qAtX", *self._where(), "-c", "SELECT 1", DATABASE]
        while subprocess.run(command, capture_output=True, check=False).returncode:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start: {(self._folder / 'log').read_text()[-500:]}")
            time.sleep(0.1)

    def _where(self) -> list[str]:
        return ["-h", str(self._folder), "-p", PORT, "-U", "bench"]

    def _server(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._binaries / program), *arguments],
            user=self._user,
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr[-500:]}")

    def _session(self) -> Session:
        known: Session | None = getattr(self._local, "session", None)
        if known is None:
            known = self._local.session = Session(["psql", "-qAtX", *self._where(), DATABASE])
            self._sessions.append(known)
        return known

    def _load(self, records: int) -> None:
        session = self._session()
        for statement in SCHEMA.strip().split(";\n"):
            session.ask(statement.rstrip(";\n"))
        if self._repack:
            session.ask("CREATE EXTENSION pg_repack")
        for start, puts in fill_values(records):
            rows = ", ".join(
                f"('{put.id}', {start + at + 1}, '{put.fields['title']} {put.fields['body']}')"
                for at, put in enumerate(puts)
            )
            session.ask(f"INSERT INTO docs(id, lsn, body) VALUES {rows}")
            for at, put in enumerate(puts):
                self.ledger.imported(key_of(put.id), start + at + 1)
        session.ask(f"SELECT setval('lsns', {records})")

    def write(self, chance: random.Random) -> None:
        put = record(chance.randrange(self._records), chance, TYPE)
        body = f"{put.fields['title']} {put.fields['body']}"
        answer = self._session().ask(WRITE.format(id=put.id, body=body))
        if answer:  # no row is returned when another writer was faster
            self.ledger.acked(key_of(put.id), int(answer[0]), deleted=False)

    def read(self, chance: random.Random) -> None:
        self._session().ask(SEARCH.format(query=words(chance)))

    def switch(self) -> float | None:
        if self._repack:
            command = [self._repack, *self._where(), "-d", DATABASE, "-t", "docs", "--no-superuser-check"]
            subprocess.run(command, check=True, capture_output=True)
        else:
            self._session().ask("REINDEX INDEX CONCURRENTLY docs_words")
        return None

    def held(self) -> dict[Key, int]:
        rows = (line.split("|") for line in self._session().ask("SELECT id, lsn FROM docs"))
        return {key_of(id): int(lsn) for id, lsn in rows}

    def close(self) -> None:
        for session in self._sessions:
            session.close()
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(timeout=START_S)
        self._log.close()
