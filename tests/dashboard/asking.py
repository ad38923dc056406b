"""Ways to ask for the pages of a dashboard: without a network, and through one."""

import io
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from wsgiref.util import setup_testing_defaults

from deepmine_auto.dashboard.serve import bound


@dataclass
class Answer:
    """What a WSGI application answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self):
        """The body as JSON."""
        return json.loads(self.body)


def ask(app, path: str, method: str = "GET", query: str = "", body: bytes = b"", **environ: str) -> Answer:
    """Ask an application for a path, as a browser on this machine would."""
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "HTTP_HOST": "127.0.0.1:8080",
        "HTTP_ACCEPT_ENCODING": "gzip",
        "SERVER_PORT": "8080",
        "CONTENT_LENGTH": str(len(body)),
        "CONTENT_TYPE": "application/json",
        **environ,
    }
    setup_testing_defaults(environ)
    environ |= {"wsgi.input": io.BytesIO(body), "wsgi.errors": io.StringIO()}
    began: list[Any] = []
    chunks = app(environ, lambda status, headers, exc_info=None: began.extend([status, headers]))
    return Answer(int(began[0].split()[0]), dict(began[1]), b"".join(chunks))


@contextmanager
def serving(app):
    """The address of an application that is served in a thread."""
    with bound(app, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
