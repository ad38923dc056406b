"""What stands before the dashboard: looking is all that it allows, to whoever may look."""

import re
import string

import pytest
from asking import ask
from fakes import Desk
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import text

from deepmine_auto.dashboard import guard
from deepmine_auto.dashboard.access import VARIABLE, address, token_for
from deepmine_auto.dashboard.guard import PAGE, Guard
from deepmine_auto.dashboard.serve import application
from deepmine_auto.errors import BadInput
from deepmine_auto.storage.sqlite import SqliteFile
from deepmine_auto.storage.store import Store

TOKEN = "a-token-of-this-test_0"
PATHS = st.text(string.printable, max_size=30).map(lambda each: f"/{each}")


def anybody(environ, start_response):
    """An application that answers all."""
    headers = [("Content-Type", "text/html"), ("Access-Control-Allow-Origin", "*"), ("Content-Security-Policy", "none")]
    start_response("200 OK", headers)
    return [b"everything"]


OPEN, LOCKED = Guard(anybody, None), Guard(anybody, TOKEN)


def filled(rule: str) -> str:
    """A path that a rule of the stock application takes."""
    return re.sub(r"<[^>]*:int>", "1", re.sub(r"<[^:>]*>|<[^>]*:(?!int)[^>]*>", "0", rule))


# -- looking is all ----------------------------------------------------------------------------------------------------


def test_every_route_of_the_stock_application_that_is_no_reading_is_refused(shown):
    app = shown.app()
    routes = [(each.method, filled(each.rule)) for each in app.application.routes]
    writing = [each for each in routes if each[0] not in ("GET", "HEAD")]
    assert len(writing) >= 20
    for method, path in writing:
        assert ask(app, path, method, body=b'{"study_name": "x", "state": "fail"}').status == 405, (method, path)


@given(method=st.text(string.ascii_uppercase, min_size=1, max_size=8), path=PATHS)
@example(method="DELETE", path="/api/studies/1")
@example(method="OPTIONS", path="/")
def test_any_other_method_is_refused_whatever_the_path(method, path):
    answer = ask(OPEN, path, method)
    assert answer.status == (200 if method in ("GET", "HEAD") else 405)
    assert method in ("GET", "HEAD") or answer.headers["Allow"] == "GET, HEAD"


def test_a_method_is_refused_even_with_the_token():
    assert ask(LOCKED, "/api/studies/1", "DELETE", HTTP_AUTHORIZATION=f"Bearer {TOKEN}").status == 405


def test_behind_the_guard_nothing_can_be_written_either(shown):
    """The database is opened for reading, so that a hole in the guard would be none in the studies."""
    stock, before = shown.app().application, told(shown)
    for method, path, body in (
        ("DELETE", f"/api/studies/{shown.curves.id}", b"{}"),
        ("POST", "/api/studies", b'{"study_name": "new", "directions": ["minimize"]}'),
        ("POST", f"/api/studies/{shown.curves.id}/rename", b'{"study_name": "new"}'),
        ("PUT", f"/api/studies/{shown.curves.id}/note", b'{"version": 99, "body": "x"}'),
        ("POST", f"/api/artifacts/{shown.curves.id}", b'{"file": "data:text/plain;base64,eA==", "filename": "x"}'),
        ("POST", "/incompatible-rdb-schema", b""),
    ):
        assert ask(stock, path, method, body=body).status in (302, 409, 500), (method, path)
    assert told(shown) == before


def told(shown):
    storage = shown.desk.store.storage
    return [(each.study_name, each.system_attrs) for each in storage.get_all_studies()]


def test_the_upgrade_of_an_older_schema_is_never_offered(tmp_path):
    """The stock application shows a button for it to anybody."""
    desk = Desk(tmp_path)
    app = application(Store(SqliteFile(tmp_path / "studies.db").open_reader()), None)
    with desk.store.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'v3.0.0.a'"))
    assert ask(app, "/dashboard").status == 200
    assert ask(app, "/incompatible-rdb-schema").headers["Location"] == "http://127.0.0.1:8080/dashboard"


# -- whoever may look --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8080", "localhost:9999", "[::1]:8080", "LOCALHOST"])
def test_without_a_token_this_machines_own_names_are_answered(host):
    assert ask(OPEN, "/", HTTP_HOST=host).status == 200


@pytest.mark.parametrize("host", ["", "evil.example", "127.0.0.1.evil.example:8080", "10.0.0.1:8080", "[::1", "a@b:c"])
def test_without_a_token_a_foreign_name_is_refused(host):
    """A page of another site could have its own name lead to this machine, and read the answer."""
    answer = ask(OPEN, "/", HTTP_HOST=host)
    assert (answer.status, answer.body) == (421, b"Open it as http://127.0.0.1.\n")


def test_with_a_token_nobody_looks_without_it():
    for headers in ({}, {"HTTP_AUTHORIZATION": "Bearer x"}, {"HTTP_COOKIE": "deepmine_auto_8080=x; a; =b; \xe9=1"}):
        answer = ask(LOCKED, "/api/studies", **headers)
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert b"everything" not in answer.body


@given(st.text(max_size=40))
@example("")
@example(TOKEN[:-1])
@example(TOKEN + "0")
def test_no_other_token_opens(guess):
    header = guess.encode().decode("latin-1")
    for more in ({"HTTP_AUTHORIZATION": f"Bearer {header}"}, {"HTTP_COOKIE": f"deepmine_auto_8080={header}"}):
        assert ask(LOCKED, "/", **more).status == (200 if guess == TOKEN else 401)


def test_how_much_of_a_guess_is_right_is_not_told_by_the_time_that_the_answer_takes(monkeypatch):
    compared, stock = [], guard.hmac.compare_digest
    monkeypatch.setattr(guard.hmac, "compare_digest", lambda *both: compared.append(both) or stock(*both))
    guesses = {"query": "token=a", "HTTP_AUTHORIZATION": "Bearer b", "HTTP_COOKIE": "deepmine_auto_8080=c"}
    assert ask(LOCKED, "/", **guesses).status == 401
    assert compared == [(guess, TOKEN.encode()) for guess in (b"a", b"b", b"c")]


def test_the_cookie_of_another_port_of_this_machine_does_not_open():
    """A browser sends it too: its token is another dashboard's, whose cookie ours must not replace."""
    cookie = ask(LOCKED, "/", query=f"token={TOKEN}", SERVER_PORT="9090").headers["Set-Cookie"].split("; ")[0]
    assert ask(LOCKED, "/", HTTP_COOKIE=cookie, SERVER_PORT="9090").status == 200
    assert ask(LOCKED, "/", HTTP_COOKIE=cookie).status == 401


def test_the_token_opens_as_a_header_from_any_host():
    answer = ask(LOCKED, "/", HTTP_HOST="studies.example", HTTP_AUTHORIZATION=f"bearer {TOKEN}")
    assert (answer.status, answer.body) == (200, b"everything")


def test_the_printed_address_becomes_a_cookie_and_loses_its_token():
    welcome = ask(LOCKED, "/dashboard/studies/1", query=f"token={TOKEN}")
    assert (welcome.status, welcome.headers["Location"]) == (303, "/dashboard/studies/1")
    cookie, *properties = welcome.headers["Set-Cookie"].split("; ")
    assert properties == ["Path=/", "HttpOnly", "SameSite=Lax"]
    assert ask(LOCKED, "/", HTTP_COOKIE=f"other=1; {cookie}").status == 200


@given(PATHS)
@example("//evil.example/")
@example("/a\r\nSet-Cookie: b=c")
def test_the_way_on_stays_on_this_host(path):
    location = ask(LOCKED, path, query=f"token={TOKEN}").headers["Location"]
    assert re.fullmatch(r"/(?!/)[\w/.~%-]*", location, re.ASCII)


def test_a_machines_own_names_need_no_token_and_others_get_a_new_one(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert [token_for(each) for each in ("127.0.0.1", "LocalHost", "::1")] == [None] * 3
    assert len({token_for("0.0.0.0"), token_for("10.0.0.1")} - {None}) == 2


def test_the_environments_token_counts_everywhere(monkeypatch):
    monkeypatch.setenv(VARIABLE, TOKEN)
    assert [token_for(each) for each in ("127.0.0.1", "0.0.0.0")] == [TOKEN] * 2


@pytest.mark.parametrize("given", ["", "short", "with blanks between them", "a" * 129, "semicolon;semicolon"])
def test_a_token_that_could_be_guessed_or_breaks_a_header_is_refused(monkeypatch, given):
    monkeypatch.setenv(VARIABLE, given)
    with pytest.raises(BadInput, match=r"is no good token\. It needs 16 to 128 letters"):
        token_for("0.0.0.0")


def test_the_address_is_one_that_a_browser_opens():
    assert address("127.0.0.1", 8080, "dashboard", None) == "http://127.0.0.1:8080/dashboard"
    assert address("::1", 80, "", TOKEN) == f"http://[::1]:80/?token={TOKEN}"
    assert "0.0.0.0" not in address("0.0.0.0", 80, "", None)


# -- what a page may do ------------------------------------------------------------------------------------------------


def test_every_answer_has_our_policy_and_no_other_sites_page_may_read_it():
    for answer in (ask(OPEN, "/"), ask(OPEN, "/", "POST"), ask(LOCKED, "/"), ask(OPEN, "/", HTTP_HOST="evil.example")):
        assert answer.headers["Content-Security-Policy"] == PAGE
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_no_script_runs_that_stands_in_a_page_or_comes_from_elsewhere():
    rules = dict(each.split(" ", 1) for each in PAGE.split("; "))
    assert rules["script-src"] == "'self' 'unsafe-eval'"
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == rules["frame-ancestors"] == "'none'"


@pytest.mark.parametrize("path", ["/artifacts/1/ab", "//artifacts/1/2/ab"])
def test_an_artifact_is_no_page_whatever_it_says_it_is(path):
    headers = ask(OPEN, path).headers
    assert headers["Content-Disposition"] == "attachment"
    assert headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_an_answer_to_head_has_no_body():
    assert ask(LOCKED, "/", "HEAD").body == b""
