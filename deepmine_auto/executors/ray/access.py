"""Who may use a Ray. Whoever reaches one that wants no token runs code on all of its machines, so it is not joined."""

from __future__ import annotations

import http.client
import os
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Literal

from ray._raylet import AuthenticationTokenLoader, Config, GcsClient  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError, RpcError

from deepmine_auto.errors import BadInput, UnsafeEnvironment

MODE = "RAY_AUTH_MODE"
PROBE_SECONDS = 5.0
IMPATIENT = '{"py_gcs_connect_timeout_s": 2, "gcs_rpc_server_connect_timeout_s": 2}'
"""Where no Ray answers, Ray itself would wait 40 seconds."""

OPEN_PATHS = ("/api/version", "/api/jobs/")
"""What a dashboard tells, and lets do, without a token where it asks for none."""

Mode = Literal["token", "disabled"]


def check(address: str, insecure: bool) -> Mode:
    """How to authenticate at the cluster at `address` (host:port); an open one is joined only if `insecure`.

    Raises BadInput where there is no cluster or where it does not accept our token, UnsafeEnvironment if it is open.
    """
    parts(address)
    if _lets_in(address, "disabled"):
        _refuse_open(f"The Ray cluster at {address} lets anybody in: it asks for no token.", insecure)
        return "disabled"
    if not _has_token() or not _lets_in(address, "token"):
        what = f"The Ray cluster at {address} does not accept the token of this machine."
        raise BadInput(what, "Put its token into ~/.ray/auth_token, or name a file in RAY_AUTH_TOKEN_PATH.")
    dashboard = _dashboard_of(address)
    if dashboard and answers_without_token(dashboard):
        _refuse_open(f"The dashboard of the Ray cluster at {dashboard} takes jobs without a token.", insecure)
    return "token"


def _refuse_open(what: str, insecure: bool) -> None:
    if not insecure:
        remedy = "Start it with RAY_AUTH_MODE=token, or join it as it is with --insecure-cluster."
        raise UnsafeEnvironment(what, remedy)


@contextmanager
def authenticating(mode: Mode, config: str = "") -> Iterator[None]:
    """Let Ray in this process use a token, or none, for one session. Ray itself would stay in the mode of the first."""
    before = os.environ.get(MODE)
    os.environ[MODE] = mode
    _reread(config)
    try:
        yield
    finally:
        if before is None:
            del os.environ[MODE]
        else:
            os.environ[MODE] = before
        _reread()


def _reread(config: str = "") -> None:
    Config.initialize(config)
    AuthenticationTokenLoader.instance().reset_cache()


def _has_token() -> bool:
    loader = AuthenticationTokenLoader.instance()
    loader.reset_cache()
    try:
        return bool(loader.has_token(ignore_auth_mode=True))
    except AuthenticationError:  # a file is named that is not there
        return False


# -- asking ----------------------------------------------------------------------------------------------------------


def no_cluster(address: str) -> BadInput:
    """What is said of an address where no cluster answers."""
    return BadInput(f"There is no Ray cluster at '{address}'.", "Start one, or give another --address or --executor.")


def parts(address: str) -> tuple[str, int]:
    """Host and port of an address. Raises BadInput."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        what = f"'{address}' is no address of a Ray cluster."
        raise BadInput(what, "Give host:port of its head (port 6379, if it was not chosen), or auto.")
    return host.strip("[]"), int(port)


def _lets_in(address: str, mode: Mode) -> bool:
    return _client(address, mode) is not None


def _client(address: str, mode: Mode) -> GcsClient | None:
    """A client of the cluster's control store, or None where that wants another token. Raises BadInput."""
    with authenticating(mode, IMPATIENT), _silent():
        try:
            return GcsClient(address)
        except AuthenticationError:
            return None
        except RpcError as error:
            raise no_cluster(address) from error


def _dashboard_of(address: str) -> str | None:
    """Where others reach the cluster's dashboard, if it has one: on the cluster's host."""
    with authenticating("token"), _silent():
        found = GcsClient(address).internal_kv_get(b"dashboard", b"dashboard", timeout=PROBE_SECONDS)
    return f"{parts(address)[0]}:{parts(found.decode())[1]}" if found else None


def answers_without_token(dashboard: str) -> bool:
    """Whether a dashboard at host:port answers what only a holder of the token may ask."""
    for path in OPEN_PATHS:
        with suppress(OSError, http.client.HTTPException), closing(_connection(dashboard)) as connection:
            connection.request("GET", path)
            if connection.getresponse().status == http.client.OK:
                return True
    return False


def _connection(dashboard: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(*parts(dashboard), timeout=PROBE_SECONDS)


@contextmanager
def _silent() -> Iterator[None]:
    """Keep what Ray's C++ writes of a refused client off the terminal: to be refused is the good case."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


# -- the token of a local Ray ----------------------------------------------------------------------------------------


def ensure_token() -> None:
    """Make the token of a local Ray, readable by its owner alone; Ray itself would leave that to the umask. Raises
    BadInput where it cannot be kept."""
    if "RAY_AUTH_TOKEN" in os.environ:
        return
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    try:
        _make(Path(named) if named else Path.home() / ".ray" / "auth_token")
    except (OSError, RuntimeError) as error:  # the latter where nobody knows a home
        why = (getattr(error, "strerror", None) or str(error)).rstrip(".")
        what = f"The token of a local Ray cannot be kept in {named or '~/.ray/auth_token'}: {why}."
        remedy = "Set HOME or RAY_AUTH_TOKEN_PATH to a place that you may write, or use --executor inline."
        raise BadInput(what, remedy) from error


def _make(place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished = place.with_name(f".{place.name}.{os.getpid()}")
    with os.fdopen(os.open(unfinished, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "w") as opened:
        opened.write(secrets.token_hex(32))
    try:
        os.link(unfinished, place)  # whole or not at all: another command may begin at the same time
    except FileExistsError:
        if place.stat().st_uid == os.getuid():
            place.chmod(0o600)
    finally:
        unfinished.unlink()
