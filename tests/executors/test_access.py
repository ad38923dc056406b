"""Opening a Ray, without one: what is asked of a cluster before it is joined, and what a local one is given."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from ray._private.authentication.authentication_utils import get_authentication_mode_name
from ray._raylet import get_authentication_mode

from deepmine_auto.errors import BadInput, UnsafeEnvironment
from deepmine_auto.executors.ray import access, cluster

PLACES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", access.MODE)


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for each in PLACES:
        monkeypatch.delenv(each, raising=False)


@contextmanager
def dashboard(*open_paths: str) -> Iterator[str]:
    """A stub that answers some paths, and refuses the others."""

    class Stub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path in open_paths else 401)
            self.end_headers()

        def log_message(self, *_) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Stub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("path", access.OPEN_PATHS)
def test_a_dashboard_that_answers_without_a_token_is_open(path):
    with dashboard(path) as place:
        assert access.answers_without_token(place)


def test_a_dashboard_that_asks_for_a_token_or_is_not_there_is_not_open():
    with dashboard("/", "/api/healthz") as place:
        assert not access.answers_without_token(place)
    assert not access.answers_without_token(place)


def test_an_open_dashboard_of_a_closed_cluster_is_refused_unless_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(access, "_has_token", lambda: True)
    monkeypatch.setattr(access, "_lets_in", lambda _, mode: mode == "token")
    with dashboard("/api/jobs/") as place:
        monkeypatch.setattr(access, "_dashboard_of", lambda _: place)
        with pytest.raises(UnsafeEnvironment, match=rf"The dashboard .* at {place} takes jobs without a token\."):
            access.check("10.0.0.1:6379", insecure=False)
        assert access.check("10.0.0.1:6379", insecure=True) == "token"


@pytest.mark.parametrize(
    "address", ["ray://head:10001", "local", "head", "head:", ":6379", "http://head:8265", "a:b", "a:²"]
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(BadInput, match=rf"'{address}' is no address of a Ray cluster\. Give host:port"):
        access.check(address, insecure=True)


@pytest.mark.slow
def test_an_address_where_nothing_answers_is_refused():
    with pytest.raises(BadInput, match=r"There is no Ray cluster at '127\.0\.0\.1:1'\. Start one, or give another"):
        access.check("127.0.0.1:1", insecure=True)


@pytest.mark.parametrize("nothing", [lambda _: None, lambda _: (_ for _ in ()).throw(ConnectionError)])
def test_where_no_cluster_runs_auto_is_refused(monkeypatch, nothing):
    monkeypatch.setattr(cluster, "canonicalize_bootstrap_address", nothing)
    with pytest.raises(BadInput, match=r"There is no Ray cluster at 'auto'\."), cluster.started("auto", None):
        pass


def test_a_cluster_of_another_version_is_refused(monkeypatch):
    def other(**_):
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.9.0")

    monkeypatch.setattr(access, "check", lambda *_: "token")
    monkeypatch.setattr(cluster.ray, "init", other)
    told = (
        r"The Ray cluster at head:1 cannot be joined: Version mismatch: .* with: Ray: 2\.9\.0\. It must have this Ray"
    )
    with pytest.raises(BadInput, match=told), cluster.started("head:1", None):
        pass
    with pytest.raises(RuntimeError, match="Version mismatch"), cluster.started(None, None):
        pass  # no cluster is to blame: a bug keeps its traceback


@pytest.mark.parametrize("name", ["DEEPMINE_AUTO_STORAGE", "PGPASSWORD"])
def test_a_ray_inherits_no_password_and_its_driver_keeps_it(monkeypatch, name):
    given = {}
    monkeypatch.setenv(name, "canary")
    monkeypatch.setattr(cluster.ray, "init", lambda **options: given.update(options, inherited=os.environ.get(name)))
    with cluster.started(None, None):
        assert os.environ[name] == "canary"
    assert given["inherited"] is None
    assert given["runtime_env"]["env_vars"][name] == "", "nor from the shell that a cluster was started from"


@pytest.mark.parametrize("admitted", [None, "", "crows,birds"])
def test_workers_of_a_cluster_admit_the_plugins_that_their_driver_admits(monkeypatch, admitted):
    given = {}
    monkeypatch.delenv("DEEPMINE_AUTO_PLUGINS", raising=False)
    if admitted is not None:
        monkeypatch.setenv("DEEPMINE_AUTO_PLUGINS", admitted)
    monkeypatch.setattr(access, "check", lambda *_: "token")
    monkeypatch.setattr(cluster.ray, "init", lambda **options: given.update(options))
    with cluster.started("head:1", None):
        assert given["runtime_env"]["env_vars"].get("DEEPMINE_AUTO_PLUGINS") == admitted


def test_a_local_ray_has_the_gpus_that_torch_reports_and_no_more(monkeypatch):
    """Ray would believe any number, and a search on eight GPUs that are not there would train on the CPU unseen."""
    given = {}
    monkeypatch.setattr(cluster.ray, "init", lambda **options: given.update(options))
    for there, asked, expected in [(0, None, 0), (0, 8, 0), (4, None, 4), (4, 2, 2), (4, 8, 4)]:
        monkeypatch.setattr(cluster, "gpus_here", lambda there=there: there)
        with cluster.started(None, asked):
            assert given["num_gpus"] == expected


def test_a_local_ray_has_the_cores_that_a_dry_run_counts(monkeypatch):
    given = {}
    monkeypatch.setattr(cluster.ray, "init", lambda **options: given.update(options))
    monkeypatch.setattr(cluster, "cores_here", lambda: 3)
    with cluster.started(None, None):
        assert given["num_cpus"] == 3


@pytest.mark.slow
def test_a_port_that_is_no_ray_is_refused(capfd):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(BadInput, match=r"There is no Ray cluster at '127\.0\.0\.1:\d+'\."):
            access.check(f"127.0.0.1:{other.getsockname()[1]}", insecure=True)
    assert capfd.readouterr() == ("", "")


# -- token -----------------------------------------------------------------------------------------------------------


def permissions(file: Path) -> int:
    return file.stat().st_mode & 0o777


def test_the_token_of_a_local_ray_is_readable_by_its_owner_alone(tmp_path):
    before = os.umask(0)
    try:
        access.ensure_token()
    finally:
        os.umask(before)
    file = tmp_path / ".ray" / "auth_token"
    assert permissions(file) == 0o600
    assert len(file.read_text()) == 64
    assert [each.name for each in file.parent.iterdir()] == ["auth_token"]


def test_a_token_that_ray_left_to_the_umask_is_kept_and_closed(tmp_path, monkeypatch):
    file = tmp_path / "elsewhere" / "token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    file.parent.mkdir()
    file.write_text("mine")
    file.chmod(0o644)
    access.ensure_token()
    assert file.read_text() == "mine"
    assert permissions(file) == 0o600
    assert not (tmp_path / ".ray").exists()


def test_a_token_of_somebody_else_is_left_as_it_is(tmp_path, monkeypatch):
    file = tmp_path / "token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    file.write_text("theirs")
    file.chmod(0o644)
    monkeypatch.setattr(access.os, "getuid", lambda: file.stat().st_uid + 1)
    access.ensure_token()
    assert permissions(file) == 0o644


def test_no_file_is_made_where_the_environment_has_the_token(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    access.ensure_token()
    assert list(tmp_path.iterdir()) == []


def test_a_token_that_cannot_be_kept_is_a_sentence(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("HOME", str(file))
    told = r"cannot be kept in ~/\.ray/auth_token: Not a directory\. Set HOME or RAY_AUTH_TOKEN_PATH to a place that"
    with pytest.raises(BadInput, match=told):
        access.ensure_token()
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file / "folder" / "token"))
    with pytest.raises(BadInput, match=r"cannot be kept in .*/file/folder/token: Not a directory\. Set HOME"):
        access.ensure_token()


def test_who_has_no_home_names_a_place_for_the_token(tmp_path, monkeypatch):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(access.Path, "home", nowhere)
    with pytest.raises(BadInput, match=r"auth_token: Could not determine home directory\. Set HOME or .* inline\."):
        access.ensure_token()
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    access.ensure_token()
    assert len((tmp_path / "token").read_text()) == 64


def mode_of_ray() -> str:
    """What Ray itself believes."""
    return get_authentication_mode_name(get_authentication_mode())


@pytest.mark.parametrize("before", [None, "token", "disabled"])
def test_how_one_session_authenticates_does_not_stick(before, monkeypatch):
    if before:
        monkeypatch.setenv(access.MODE, before)
    for mode in ("token", "disabled"):
        with access.authenticating(mode):
            assert os.environ[access.MODE] == mode
            assert mode_of_ray() == mode
        assert os.environ.get(access.MODE) == before
        assert mode_of_ray() == (before or "disabled")
