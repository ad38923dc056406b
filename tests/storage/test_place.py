"""Where studies are kept, as a user says it; and a password, which nobody may see."""

import copy
import os
import pickle
import sys
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st
from postgres import ENCODED, PASSWORD
from sqlalchemy import URL

from deepmine_auto.commands.options import database
from deepmine_auto.errors import BadInput, MissingExtra
from deepmine_auto.storage import VARIABLE, postgresql, sqlite
from deepmine_auto.storage.place import flag_of, place_in, place_of, trusted
from deepmine_auto.storage.sqlite import SqliteFile, file_of

SECRET = f"postgresql://me:{ENCODED}@db.example:5433/studies?sslmode=require"
OPEN = "postgresql://me@db.example:5433/studies?sslmode=require"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    return tmp_path


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_path_and_a_url_mean_the_same_file(here):
    assert file_of(f"sqlite:///{here}/a.db") == file_of(f"{here}/a.db") == file_of("a.db") == here / "a.db"


def test_a_database_is_one_place_whatever_links_lead_to_it(here):
    """Else each name of it would have a lock of its own."""
    (here / "real").mkdir()
    (here / "linked").symlink_to(here / "real")
    (here / "other.db").symlink_to(here / "real" / "studies.db")
    found = {place_of(each) for each in ("real/studies.db", "linked/studies.db", "other.db", "linked/../other.db")}
    assert found == {SqliteFile(here / "real" / "studies.db")}


def test_a_link_that_leads_to_itself_is_refused(here):
    (here / "loop.db").symlink_to(here / "loop.db")
    with pytest.raises(BadInput, match=r"loop\.db cannot be read: Too many levels of symbolic links\. Check path"):
        place_of("loop.db")


def test_the_usual_place_is_below_the_folder_that_a_command_is_typed_in(here):
    place = place_of()
    assert place == SqliteFile(here / "deepmine-auto" / "studies.db")
    assert place.folder == here / "deepmine-auto"
    assert place.url == f"sqlite:///{here}/deepmine-auto/studies.db"
    assert place.names() == set()
    assert not list(here.iterdir()), "looking makes nothing"


def test_a_folder_is_refused(here):
    with pytest.raises(BadInput, match=r"is a folder\. Name a file in it, such as studies\.db"):
        place_of(str(here))


def test_what_is_no_sqlite_file_is_refused_and_left_as_it_is(here):
    (here / "notes.txt").write_text("a shopping list of some length")
    with pytest.raises(BadInput, match=r"notes\.txt is no SQLite database\. Name another file"):
        place_of("notes.txt")
    assert (here / "notes.txt").read_text().startswith("a shopping")


def test_an_empty_file_may_become_a_database(here):
    (here / "new.db").touch()
    assert place_of("new.db").names() == set()
    assert place_of("new.db").look() == "new"


def test_another_kind_of_database_is_refused():
    for text in ("mysql://host/name", "sqlite://name"):
        with pytest.raises(BadInput, match=r"storage is not supported\. Give a file, sqlite:///FILE or postgresql"):
            place_of(text)


# -- databases ---------------------------------------------------------------------------------------------------------


def test_the_text_of_a_database_is_what_to_type(here):
    place = place_of(OPEN)
    assert str(place) == OPEN
    assert place_of(str(place)) == place
    assert place.url == OPEN.replace("postgresql:", "postgresql+psycopg:")
    assert place.folder == here / "deepmine-auto"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_each_name_of_postgresql_is_understood(scheme):
    assert place_of(OPEN.replace("postgresql", scheme)) == place_of(OPEN)


def test_another_driver_than_psycopg_3_is_refused():
    with pytest.raises(BadInput, match=r"'postgresql\+psycopg2' is not supported\. Write postgresql://USER@HOST/NAME"):
        place_of("postgresql+psycopg2://host/name")


@pytest.mark.parametrize("text", [SECRET, f"{OPEN}&password={ENCODED}", f"{OPEN}&sslpassword={ENCODED}"])
def test_a_password_that_is_typed_is_refused_and_not_repeated(text):
    with pytest.raises(BadInput, match=rf"in the environment variable {VARIABLE} or in a --storage-file") as caught:
        place_of(text)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("text", [SECRET, f"{OPEN}&password={ENCODED}", f"{OPEN}&sslpassword={ENCODED}"])
def test_no_text_of_a_place_shows_its_password(text):
    place = trusted(text)
    assert "canary" in str(place.secrets)
    assert str(place) == OPEN
    for shown in (str(place), repr(place), place.url, f"{place}", repr(pickle.dumps(place))):
        assert "canary" not in shown
    assert pickle.loads(pickle.dumps(place)) == copy.copy(place) == place_of(OPEN)
    assert not pickle.loads(pickle.dumps(place)).secrets


def test_what_sqlalchemy_calls_for_a_connection_can_be_sent_away_without_the_password():
    creator = trusted(SECRET)._engine()["creator"]
    assert creator.place.secrets
    assert b"canary" not in pickle.dumps(creator)
    assert "canary" not in repr(creator)


def test_the_environment_says_where_studies_are_and_may_hold_the_password(monkeypatch):
    monkeypatch.setenv(VARIABLE, SECRET)
    assert place_of().secrets == {"password": PASSWORD}
    assert place_of(OPEN).secrets == {"password": PASSWORD}, "it is the same database"
    assert place_of(OPEN.replace("5433", "5434")).secrets == {}
    assert place_of(OPEN.replace("me@", "you@")).secrets == {}
    assert flag_of(place_of(OPEN)) == ""


def test_a_storage_file_may_hold_the_password(here):
    (here / "storage").write_text(f"{SECRET}\nand a remark\n")
    assert place_in("storage").secrets == {"password": PASSWORD}
    assert database(None, "storage") == place_in("storage")


@pytest.mark.parametrize(
    ("content", "told"),
    [(None, r"cannot be read: .*No such file"), ("\n", "first line of storage is empty"), (b"\xff", "cannot be read")],
)
def test_a_storage_file_that_says_nothing_is_refused(here, content, told):
    if content is not None:
        (here / "storage").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BadInput, match=told):
        place_in("storage")


def test_what_a_storage_file_names_is_named_by_that_file_again(here):
    (here / "my storage").write_text(f"{SECRET}\n")
    place = place_in("my storage")
    assert place == trusted(SECRET)
    assert flag_of(place) == " --storage-file 'my storage'"
    (here / "my storage").write_text("none.db")
    with pytest.raises(BadInput, match=r"none\.db\. Name it with --storage-file, or begin with a search"):
        place_in("my storage").open_reader()


def test_what_is_wrong_with_a_storage_that_was_not_typed_says_where_it_stands(here, monkeypatch):
    (here / "storage").write_text("mysql://host/name")
    with pytest.raises(BadInput, match=r"^storage: 'mysql' storage is not supported\. Give a file"):
        place_in("storage")
    monkeypatch.setenv(VARIABLE, "mysql://host/name")
    with pytest.raises(BadInput, match=rf"^{VARIABLE}: 'mysql' storage is not supported\. Give a file"):
        place_of()


def test_a_storage_file_may_begin_with_a_byte_order_mark(here):
    (here / "storage").write_text(f"\ufeff{OPEN}\n", encoding="utf-8")
    assert place_in("storage") == trusted(OPEN)


def test_two_places_at_once_are_refused():
    with pytest.raises(BadInput, match="--storage and --storage-file were both given"):
        database("a.db", "storage")


def test_the_next_command_needs_no_storage_at_the_usual_place_and_a_quoted_one_elsewhere(here):
    assert flag_of(place_of()) == ""
    assert flag_of(place_of("my studies.db")) == f" --storage '{here}/my studies.db'"
    assert flag_of(place_of("postgresql://me@host/name")) == " --storage postgresql://me@host/name"


def test_where_nothing_can_be_kept_the_next_command_is_told_the_storage(here, monkeypatch):
    monkeypatch.setattr(sqlite, "filesystem_of", lambda folder: "nfs4")
    assert flag_of(SqliteFile(here / "a.db")) == f" --storage {here}/a.db"


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_any_password_survives_the_url(password):
    url = URL.create("postgresql", "me", password, "host", None, "name").render_as_string(hide_password=False)
    place = trusted(url)
    assert place._arguments()["password"] == password
    assert str(place) == "postgresql://me@host/name"


@pytest.mark.parametrize(
    "text",
    ["postgresql://me:can@ary@host:port/x", "postgresql://me:canary/5@host:x/y", "postgresql://me:canary/studies"],
)
def test_a_url_that_cannot_be_read_is_refused_without_repeating_it(text):
    with pytest.raises(BadInput, match=r"URL cannot be read\. .* in a password, @ is written %40") as caught:
        trusted(text)
    assert "canary" not in "".join(traceback.format_exception(caught.value))


def test_without_psycopg_the_command_that_installs_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match=r'not installed\. pip install "deepmine-auto\[postgresql\]"'):
        place_of(OPEN)


def test_a_host_of_odd_characters_is_named_in_ascii(monkeypatch):
    monkeypatch.setattr(postgresql.socket, "gethostname", lambda: "maße'" * 20)
    assert postgresql._who().startswith(f"deepmine-auto process {os.getpid()} on ma?e?")
    assert len(postgresql._who()) <= 63
