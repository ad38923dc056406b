"""A real PostgreSQL server for the tests, from the system's packages, in a folder of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from pathlib import Path
from typing import Any

import psycopg

USER, PASSWORD = "tester", "p{x}%@:/ canary"
"""Who the tests are, and a password of everything that a URL, a format or a shell could stumble over."""

ENCODED = "p%7Bx%7D%25%40%3A%2F%20canary"

MILLISECONDS_TO_END = 60_000
"""How long a session may take to notice that it was cut: a busy machine takes more than a moment."""


def programs() -> Path | None:
    """The folder of initdb and postgres, or None where they are not installed."""
    found = shutil.which("initdb")
    folders = [str(Path(found).resolve().parent)] if found else sorted(glob("/usr/lib/postgresql/*/bin"))
    return Path(folders[-1]) if folders else None


class Server:
    """One server: a unix socket that trusts, and a port of 127.0.0.1 that asks for the password.

    A test's server does not wait for the disk, because its machine is not switched off; a `durable` one does.
    """

    def __init__(self, bin: Path, durable: bool = False) -> None:
        self.bin, self.durable = bin, durable
        self.folder = Path(tempfile.mkdtemp(prefix="pg"))  # a socket's path must be short
        self.user = "postgres" if os.geteuid() == 0 else None  # it refuses to be run by root
        if self.user:
            os.chown(self.folder, pwd.getpwnam(self.user).pw_uid, -1)
        self.port = _free_port()
        self.made, self.free = 0, []
        self._initialise()
        self.start()
        self.run(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")

    def _initialise(self) -> None:
        made = [self.bin / "initdb", "-D", self.folder / "data", "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8"]
        subprocess.run([*made, "--locale=C"], user=self.user, check=True, capture_output=True, cwd="/")
        rules = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        (self.folder / "data" / "pg_hba.conf").write_text(rules)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        told = ["-D", self.folder / "data", "-k", self.folder, "-h", "127.0.0.1", "-p", str(self.port)]
        waits = ["-c", f"fsync={'on' if self.durable else 'off'}", "-c", "max_connections=40"]
        command = [self.bin / "postgres", *told, *waits]
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(command, user=self.user, stdout=log, stderr=log, cwd="/")
        for _ in range(600):
            try:
                return self.run("SELECT 1")
            except psycopg.OperationalError:
                assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
                time.sleep(0.05)
        raise TimeoutError((self.folder / "log").read_text()[-2000:])

    def kill(self) -> None:
        """SIGKILL to the postmaster; without wait() its number would stay, and keep the next one from starting."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it, and delete all that it was."""
        self.process.send_signal(signal.SIGQUIT)  # at once: nothing of it is needed any more
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def superuser(self, database: str) -> psycopg.Connection[Any]:
        """A connection that may do anything."""
        told = f"host={self.folder} port={self.port} user=postgres dbname={database}"
        return psycopg.connect(told, autocommit=True, connect_timeout=10)

    def run(self, statement: str, database: str = "postgres") -> None:
        """Run a statement as the superuser."""
        with self.superuser(database) as connection:
            connection.execute(statement)

    def rows(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """What a query of the superuser returns."""
        with self.superuser(database) as connection:
            return connection.execute(statement).fetchall()

    @contextmanager
    def database(self) -> Iterator[str]:
        """The name of an empty database of the user's; used again later, because making one takes a thousand files."""
        name = self.free.pop() if self.free else self.new_database()
        yield name
        self.terminate_backends(name)
        self.run(f"ALTER DATABASE {name} CONNECTION LIMIT -1; ALTER DATABASE {name} OWNER TO {USER}")
        self.run("DROP SCHEMA public CASCADE; CREATE SCHEMA public AUTHORIZATION pg_database_owner", name)
        self.run("GRANT USAGE ON SCHEMA public TO PUBLIC", name)
        self.free.append(name)

    def new_database(self) -> str:
        """Make an empty database of the user's, and return its name."""
        self.made, name = self.made + 1, f"studies{self.made}"
        self.run(f"CREATE DATABASE {name} OWNER {USER} TEMPLATE template0")
        return name

    def url(self, database: str) -> str:
        """The URL of a database without a password, over the socket."""
        return f"postgresql://{USER}@/{database}?host={self.folder}&port={self.port}"

    def tcp(self, database: str, *, password: bool, port: int | None = None) -> str:
        """The URL of a database over the network."""
        who = f"{USER}:{ENCODED}" if password else USER
        return f"postgresql://{who}@127.0.0.1:{port or self.port}/{database}"

    def terminate_backends(self, database: str, where: str = "TRUE") -> None:
        """Cut all connections to a database, or some of `pg_stat_activity`, and wait until they are gone."""
        mine = f"datname = '{database}' AND pid <> pg_backend_pid()"
        ended = f"pg_terminate_backend(pid, {MILLISECONDS_TO_END})"
        self.run(f"SELECT {ended} FROM pg_stat_activity WHERE {mine} AND {where}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])
