"""Serving: the stock application over a database opened for reading, in threads of this process."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any, BinaryIO, NoReturn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import WSGIApplication

from optuna.storages import _CachedStorage

from deepmine_auto.dashboard.guard import Guard
from deepmine_auto.errors import BadInput, MissingExtra
from deepmine_auto.storage.store import Store
from deepmine_auto.study.showing import ARTIFACTS


def application(store: Store, token: str | None) -> WSGIApplication:
    """The stock dashboard behind our guard. `store` should be a reader's. Raises MissingExtra."""
    try:
        from optuna_dashboard import wsgi
    except ImportError as error:
        what = "The dashboard needs optuna-dashboard, which is not installed."
        raise MissingExtra(what, 'pip install "deepmine-auto[dashboard]"') from error
    # behind the cache it is no RDBStorage, for which the stock application would offer an upgrade of the schema
    return Guard(wsgi(_CachedStorage(store.storage), artifact_store=Artifacts(store)), token)


class Artifacts:
    """The artifacts of all studies of a database, each in its study's folder; an Optuna artifact store to read from."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Open an artifact. Answers 404 where its file is gone."""
        from bottle import HTTPError

        for name in self.store.names():
            file = Path(self.store.study(name).folder) / ARTIFACTS / Path(artifact_id).name
            if file.is_file():
                return open(file, "rb")
        raise HTTPError(404, "The file of this artifact is gone.")

    def write(self, artifact_id: str, content_body: BinaryIO) -> NoReturn:
        """Refuse."""
        raise PermissionError("the dashboard reads only")

    def remove(self, artifact_id: str) -> NoReturn:
        """Refuse."""
        raise PermissionError("the dashboard reads only")


class Server(ThreadingMixIn, WSGIServer):
    """A thread a request; none outlives the command."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell of an error on standard error, but not of a connection that broke, or that our own end closed."""
        if not isinstance(sys.exception(), OSError | ValueError):
            super().handle_error(request, client_address)


class ServerOf6(Server):
    """The same for an address of IPv6."""

    address_family = socket.AF_INET6


class Quiet(WSGIRequestHandler):
    """Writes no line a request: it would hold the token."""

    timeout = 30

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def bound(app: WSGIApplication, host: str, port: int) -> Server:
    """A server at an address, which `serve_forever` starts; port 0 is any that is free. Raises BadInput."""
    kind = ServerOf6 if ":" in host else Server
    try:
        server = kind((host, port), Quiet)
    except (OSError, OverflowError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        what = f"Nothing can be served at {host}, port {port}: {why}."
        raise BadInput(what, "Give another --port (0 is any that is free), or another --host.") from error
    server.set_app(app)
    return server
