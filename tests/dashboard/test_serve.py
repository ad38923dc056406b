"""The command and its server: they answer while a search writes, and end as every command ends."""

import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
from asking import ask, serving
from fakes import Desk
from typed import PROGRAM, command

from deepmine_auto.dashboard.serve import Artifacts, Quiet, application, bound
from deepmine_auto.errors import BadInput, MissingExtra
from deepmine_auto.storage.sqlite import SqliteFile
from deepmine_auto.storage.store import Store
from deepmine_auto.study.showing import attach, note_study

SECONDS = 30


def got(url: str, **headers: str) -> tuple[int, str]:
    """The status and the text at an address."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=SECONDS) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@contextmanager
def dashboard(shown, *args, **environment):
    """The command in a process of its own, and the address that it printed."""
    place = str(shown.desk.folder / "studies.db")
    process = subprocess.Popen(
        [*PROGRAM, "dashboard", "--port", "0", "--storage", place, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_prints_the_studys_address_serves_it_and_ends_quietly(shown, number, code):
    with dashboard(shown, "curves") as (process, url):
        assert url.endswith(f"/dashboard/studies/{shown.curves.id}")
        status, page = got(url)
        assert (status, "<title>Optuna Dashboard</title>" in page) == (200, True)
        drawn_from_few_trials = f"/api/studies/{shown.curves.id}/param_importances"
        assert got(url.partition("/dashboard")[0] + drawn_from_few_trials)[0] == 200
        with socket.create_connection(("127.0.0.1", int(url.split(":")[2].split("/")[0]))):  # a browser keeps one open
            process.send_signal(number)
            assert process.wait(SECONDS / 2) == code
        assert process.stderr.read().strip() == ""


def test_other_machines_need_the_token_of_the_printed_address(shown):
    with dashboard(shown, "--host", "0.0.0.0") as (process, url):
        port, token = url.partition("?token=")[0].split(":")[2].split("/")[0], url.partition("?token=")[2]
        assert url.partition("?")[0].endswith(f"/dashboard/studies/{shown.front.id}")  # the newest
        assert len(token) >= 43
        here = f"http://127.0.0.1:{port}/api/studies"
        assert got(here)[0] == 401
        assert got(here, Authorization=f"Bearer {token}")[0] == 200
        process.terminate()
        assert "An ssh tunnel is safer." in process.communicate(timeout=SECONDS)[1]


def test_an_unknown_study_and_a_port_in_use_are_one_sentence_each(shown, tmp_path):
    place = ("--storage", str(shown.desk.folder / "studies.db"))
    unknown = command("dashboard", "curbes", *place, folder=tmp_path)
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "Did you mean 'curves'?" in unknown.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        used = command("dashboard", *place, "--port", str(port), folder=tmp_path)
    assert (used.returncode, used.stdout) == (2, "")
    what = f"Nothing can be served at 127.0.0.1, port {port}: Address already in use."
    assert used.stderr == f"{what} Give another --port (0 is any that is free), or another --host.\n"


@pytest.mark.parametrize("host", ["192.0.2.1", "a..b"])
def test_a_host_that_is_not_there_is_bad_input(host):
    with pytest.raises(BadInput, match=rf"Nothing can be served at {host}, port 0: .*another --host"):
        bound(lambda *_: [], host, 0)


def test_without_optuna_dashboard_the_remedy_is_told(shown, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    with pytest.raises(MissingExtra, match=r'not installed. pip install "deepmine-auto\[dashboard\]"'):
        application(shown.reader, None)


# -- the server --------------------------------------------------------------------------------------------------------


def test_it_answers_while_a_search_writes_and_disturbs_none(tmp_path):
    desk = Desk(tmp_path)
    study = desk.begin()
    app = application(Store(SqliteFile(tmp_path / "studies.db").open_reader()), None)
    done, statuses = threading.Event(), []

    def look(url):
        while not done.is_set():
            statuses.append(got(f"{url}/api/studies/{study.id}")[0])

    with serving(app) as url:
        looking = threading.Thread(target=look, args=(url,))
        looking.start()
        desk.work(study)
        note_study(desk.store, study, "the last word")
        done.set()
        looking.join()
        assert set(statuses) == {200}
        assert "the last word" in got(f"{url}/api/studies/{study.id}")[1]
    assert [each.state.is_finished() for each in desk.trials(study)] == [True] * 6


def test_requests_are_answered_beside_each_other(shown):
    """A browser that keeps a connection open must not keep others out."""
    with serving(shown.app()) as url, socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))):
        assert got(f"{url}/api/meta")[0] == 200


def test_a_connection_that_says_nothing_is_closed(shown, monkeypatch):
    assert 0 < Quiet.timeout <= SECONDS
    monkeypatch.setattr(Quiet, "timeout", 0.2)
    with serving(shown.app()) as url, socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as silent:
        silent.settimeout(SECONDS)
        assert silent.recv(1) == b""


def test_an_address_of_ipv6_is_served_too():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with bound(lambda *_: [], "::1", 0) as server:
        assert server.socket.family == socket.AF_INET6


def test_no_request_is_written_down(shown, capfd):
    with serving(shown.app("a-token-of-this-test_0")) as url:
        got(f"{url}/?token=a-token-of-this-test_0")
    assert capfd.readouterr() == ("", "")


# -- artifacts ---------------------------------------------------------------------------------------------------------


def test_an_artifact_whose_file_is_gone_is_not_found(tmp_path):
    desk = Desk(tmp_path)
    study = desk.begin()
    attach(desk.store, study, "a.txt", b"text")
    (file,) = (tmp_path / "study" / "artifacts").iterdir()
    app = application(Store(SqliteFile(tmp_path / "studies.db").open_reader()), None)
    path = f"/artifacts/{study.id}/{file.name}"
    assert ask(app, path).body == b"text"
    file.unlink()
    assert ask(app, path).status == 404


@pytest.mark.parametrize("name", ["../../studies.db", "/etc/passwd", "..", ".", ""])
def test_no_artifact_leads_out_of_its_folder(shown, name):
    from bottle import HTTPError

    with pytest.raises(HTTPError, match="gone"):
        Artifacts(shown.reader).open_reader(name)


def test_artifacts_are_neither_written_nor_removed(shown):
    for refuse in (lambda: Artifacts(shown.reader).write("a", None), lambda: Artifacts(shown.reader).remove("a")):
        with pytest.raises(PermissionError, match="reads only"):
            refuse()


@pytest.mark.parametrize(("error", "told"), [(OSError(9, "Bad file descriptor"), False), (RuntimeError("odd"), True)])
def test_a_connection_that_broke_is_no_news_and_another_error_is(error, told, capsys):
    """An interrupt may close the socket of a request that a thread has just begun to read."""
    server = bound(lambda environ, start: [], "127.0.0.1", 0)
    try:
        try:
            raise error
        except (OSError, RuntimeError):
            server.handle_error(None, ("127.0.0.1", 1))
    finally:
        server.server_close()
    assert ("odd" in capsys.readouterr().err) == told
