"""Who may look: anybody on this machine, and from elsewhere whoever has the token."""

from __future__ import annotations

import os
import re
import secrets
import socket

from deepmine_auto.errors import BadInput

VARIABLE = "DEEPMINE_AUTO_DASHBOARD_TOKEN"
TOKEN = re.compile(r"[A-Za-z0-9_-]{16,128}")

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
"""The names of a machine for itself: what is served there, no other machine reaches."""

ANYWHERE = frozenset({"0.0.0.0", "::"})


def is_loopback(host: str) -> bool:
    """Whether no other machine reaches what is served at this host."""
    return host.lower() in LOOPBACK


def token_for(host: str) -> str | None:
    """The token that the environment gives; without one, a new one, or None on a loopback host. Raises BadInput."""
    given = os.environ.get(VARIABLE)
    if given is None:
        return None if is_loopback(host) else secrets.token_urlsafe(32)
    if not TOKEN.fullmatch(given):
        raise BadInput(f"{VARIABLE} is no good token.", "It needs 16 to 128 letters, digits, - or _, and no others.")
    return given


def address(host: str, port: int, path: str, token: str | None) -> str:
    """The address to open in a browser."""
    name = socket.gethostname() if host in ANYWHERE else host
    query = "" if token is None else f"?token={token}"
    return f"http://{f'[{name}]' if ':' in name else name}:{port}/{path}{query}"
