"""Our tables beside Optuna's: migrated by a road of their own, and in nobody's way."""

import hashlib
import json
import sqlite3

import optuna
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from fakes import Desk, Killed
from sqlalchemy import Engine, create_engine, event, inspect, text

from deepmine_auto.errors import BadInput
from deepmine_auto.storage import tables, upgrade
from deepmine_auto.storage.engine import Fence
from deepmine_auto.storage.place import read
from deepmine_auto.storage.store import Store
from deepmine_auto.terminal.looking import see

FROZEN = {
    "0001": "97080cbf2d3738f22e95d4ce0949bff6ae9af1d7936cbcefbf9ced1b09ce013b",
    "0002": "4596e7dca06bcd987fcd8dcfe3dfd55bd905bed97fd05cd1499d7d51c0534149",
}
"""The sha256 of each migration that was released; a schema changes by a new file, never by an edit of an old one."""


@pytest.fixture
def desk(tmp_path, place):
    return Desk(tmp_path, place=place)


def execute(place, *statements):
    """Execute statements as a stranger would."""
    engine = create_engine(place.url)
    with engine.begin() as connection:
        found = [connection.execute(text(each)) for each in statements]
        rows = [each.all() if each.returns_rows else None for each in found]
    engine.dispose()
    return rows


def standing(place):
    """Every table with its columns and rows."""
    engine = create_engine(place.url)
    with engine.connect() as connection:
        names = inspect(connection).get_table_names()
        rows = {each: sorted(map(repr, connection.execute(text(f"SELECT * FROM {each}")).mappings())) for each in names}
        columns = {each: repr(inspect(connection).get_columns(each)) for each in names}
    engine.dispose()
    return rows, columns


def test_the_migrated_schema_is_that_of_the_tables(desk):
    options = {"version_table": tables.VERSION_TABLE, "include_object": upgrade.is_ours, "compare_type": True}
    with desk.store.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts=options), tables.metadata) == []
        made = {each for each in inspect(connection).get_table_names() if each.startswith(tables.PREFIX)}
        assert made == {*tables.metadata.tables, tables.VERSION_TABLE}


def test_primary_keys_are_those_of_the_tables(desk):
    """compare_metadata does not look at them."""
    with desk.store.engine.connect() as connection:
        for name, table in tables.metadata.tables.items():
            made = inspect(connection).get_pk_constraint(name)["constrained_columns"]
            assert made == [each.name for each in table.primary_key.columns], name


def test_every_table_of_ours_is_named_as_ours():
    assert all(name.startswith(tables.PREFIX) for name in (*tables.metadata.tables, tables.VERSION_TABLE))


def test_optunas_own_version_is_untouched(desk, place, tmp_path):
    stock = f"sqlite:///{tmp_path / 'stock.db'}"
    optuna.create_study(storage=stock)
    asked = ("SELECT version_num FROM alembic_version", "SELECT schema_version, library_version FROM version_info")
    with create_engine(stock).connect() as connection:
        assert execute(place, *asked) == [connection.execute(text(each)).all() for each in asked]


def stock_tools_open(desk, study):
    """Stock Optuna and the stock dashboard open a database, and show its study as it stands."""
    loaded = optuna.load_study(study_name="study", storage=desk.place.url)
    assert [each.state for each in loaded.trials] == [each.state for each in desk.trials(study)]
    dashboard = pytest.importorskip("optuna_dashboard")
    storage = optuna.storages.RDBStorage(desk.place.url)
    answer = get(dashboard.wsgi(storage), f"/api/studies/{loaded._study_id}")
    storage.engine.dispose()
    return loaded, answer["trials"]


def get(application, path):
    """One GET of a WSGI application, as JSON."""
    from wsgiref.util import setup_testing_defaults

    environ = {"PATH_INFO": path, "QUERY_STRING": "after=0"}
    setup_testing_defaults(environ)
    told = []
    body = b"".join(application(environ, lambda status, *_: told.append(status)))
    assert told == ["200 OK"], body
    return json.loads(body)


def test_stock_optuna_and_its_dashboard_open_the_database(desk):
    study = desk.begin()
    desk.work(study)
    loaded, shown = stock_tools_open(desk, study)
    assert loaded.metric_names == ["val/f"]
    assert loaded.best_trial.state.name == "COMPLETE"
    assert len(shown) == 6
    assert {each["state"] for each in shown} == {"Complete", "Pruned"}
    pruned = next(each for each in shown if each["state"] == "Pruned")
    assert [each["step"] for each in pruned["intermediate_values"]], "its curve is shown"


# -- from what was released --------------------------------------------------------------------------------------------

SPACE = {"params": [], "fixed": {}, "recipes": []}
SPEC = {"task": "t", "objective": "f", "seed": 7, "space": SPACE, "space_name": "s", "fingerprint": "0"}

ROWS = (
    f"INSERT INTO deepmine_studies VALUES (1, '/old', '{json.dumps(SPEC)}', NULL)",
    "INSERT INTO deepmine_sessions VALUES (1, 1, 'host', 12, '2026-01-01', 2.5)",
    "INSERT INTO deepmine_reports VALUES (1, 1, 'trial', 0, 1, 9, 1000, 0.5, '{\"f\": 0.5}', NULL, 'best', 1.5)",
    "INSERT INTO deepmine_verdicts VALUES (1, 1, 0, TRUE, 0.5, NULL, 1000, '')",
    "INSERT INTO deepmine_attempts VALUES (1, 'trial', 0, 1, 1)",
    "INSERT INTO deepmine_reruns VALUES (1, 0, 0, 0, 'COMPLETE', 0.5, 'best', 1.5, NULL)",
    "INSERT INTO deepmine_events VALUES (1, 1, '2026-01-01', 'kind', NULL, 'text')",
    "INSERT INTO deepmine_plugins VALUES (1, 'task', 't', 0, 'd', '1', 'h')",
    "INSERT INTO deepmine_datasets VALUES (1, '0', 10, '{}')",
)


@pytest.fixture
def older(place):
    """A database as version 0.1.0 left it: made by its own migration, with a study that it began."""
    study = optuna.create_study(study_name="study", storage=place.url, direction="maximize")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    engine = create_engine(place.url)
    with engine.begin() as connection:
        config = upgrade._config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    execute(place, *ROWS)
    return place


def test_a_database_of_the_first_release_is_brought_up_with_all_that_it_holds(older, tmp_path):
    assert older.look().endswith("schema 0001, which the next search upgrades to 0002")
    before, _ = standing(older)
    desk = Desk(tmp_path, place=older)
    assert older.look().endswith("schema 0002")
    after, _ = standing(older)
    for name, rows in before.items():
        if name not in ("deepmine_sessions", "deepmine_attempts", "deepmine_alembic_version"):
            assert after[name] == rows, name
    assert [row["gpus"] for row in desk.store.rows(tables.sessions, 1)] == [0.0]
    attempt = {"study_id": 1, "kind": "trial", "number": 0, "attempt": 1, "epoch": 1}
    assert desk.store.rows(tables.attempts, 1) == [{**attempt, "because": "begun", "halvings": 0, "saved": None}]
    loaded, shown = stock_tools_open(desk, desk.store.study("study"))
    assert len(loaded.trials) == len(shown) == 2


def test_a_study_of_the_first_release_is_read_after_the_upgrade(older):
    older.open_writer(Fence()).engine.dispose()
    seen = see(older, "study")
    assert (seen.name, seen.seconds, len(seen.trials)) == ("study", 2.5, 2)
    assert [str(each.name) for each in seen.row.objectives] == ["f"]


def test_a_reader_of_an_older_schema_is_told_what_upgrades_it(older):
    told = r"has schema 0001, and this deepmine-auto reads 0002\. The next search or resume upgrades it"
    with pytest.raises(BadInput, match=told):
        read(older)


def test_migrations_are_found_in_a_folder_of_any_name(monkeypatch):
    monkeypatch.setattr(upgrade, "__file__", "/a%20b/upgrade.py")
    assert upgrade._config().get_main_option("script_location") == "/a%20b/migrations"


def test_an_upgrade_that_is_killed_anywhere_leaves_the_database_as_it_was(older):
    """And the next start brings it up."""
    before, kills = standing(older), 0
    while killed_after(kills, older):
        assert standing(older) == before, f"killed after statement {kills} of ours"
        kills += 1
    assert kills > 6, "there is something to kill"
    assert older.look().endswith("schema 0002")


def killed_after(statements, place):
    """Open for writing, and be killed after so many statements that change our tables; whether that happened."""
    left = statements

    @event.listens_for(Engine, "after_cursor_execute")
    def count(_connection, _cursor, statement, *_):
        nonlocal left
        if "deepmine_" in statement and not statement.startswith(("SELECT", "PRAGMA")):
            left -= 1
            if left < 0:
                raise Killed

    try:
        place.open_writer(Fence()).engine.dispose()
    except Killed:
        return True
    finally:
        event.remove(Engine, "after_cursor_execute", count)
    return False


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_a_database_of_a_newer_version_is_refused_with_a_sentence_and_left_as_it_is(desk, place):
    execute(place, f"UPDATE {tables.VERSION_TABLE} SET version_num = '9999'")
    before = standing(place)
    with pytest.raises(BadInput, match=r"made by a newer deepmine-auto \(schema 9999\)\. Upgrade deepmine-auto"):
        place.open_writer(Fence())
    assert standing(place) == before


@pytest.mark.parametrize(
    ("version", "remedy"),
    [("v9.0.0.a", r"Upgrade Optuna: pip install -U optuna"), ("v3.0.0.d", "Upgrade it: optuna storage upgrade")],
)
def test_a_database_of_another_optuna_is_refused_with_the_remedy(desk, place, version, remedy):
    execute(place, f"UPDATE alembic_version SET version_num = '{version}'")
    for use in (lambda: place.open_writer(Fence()), place.open_reader):
        with pytest.raises(BadInput, match=rf"has the tables of another Optuna than {optuna.__version__}\. {remedy}"):
            use()


def test_studies_of_optuna_4_are_refused_because_their_times_are_not_ours(place):
    optuna.create_study(study_name="older", storage=place.url)
    execute(place, "UPDATE version_info SET library_version = '4.5.0'")
    with pytest.raises(
        BadInput, match=r"has studies of Optuna 4\.5\.0, .* time zone\. Keep them apart: give --storage"
    ):
        place.open_writer(Fence())
    optuna.delete_study(study_name="older", storage=place.url)
    place.open_writer(Fence())


# -- what is left alone ------------------------------------------------------------------------------------------------


def test_a_database_of_optunas_alone_gets_our_tables_and_keeps_its_studies(place, tmp_path):
    older = optuna.create_study(study_name="older", storage=place.url)
    older.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    desk = Desk(tmp_path, place=place)
    desk.work(desk.begin())
    assert desk.store.names() == ["study"]
    assert len(optuna.load_study(study_name="older", storage=place.url).trials) == 2


def test_an_upgrade_done_again_changes_nothing(desk, place):
    desk.work(desk.begin())
    before = standing(place)
    place.open_writer(Fence())
    assert standing(place) == before
    assert Store(place.open_reader()).names() == ["study"]


def test_optuna_makes_the_tables_that_it_would_make_itself(tmp_path):
    """We make them, in one transaction."""

    def schema(file):
        with sqlite3.connect(file) as connection:
            rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master")
            return sorted(repr(each) for each in rows if tables.PREFIX not in each[1] + each[2])

    Desk(tmp_path)
    optuna.create_study(storage=f"sqlite:///{tmp_path / 'stock.db'}")
    assert schema(tmp_path / "studies.db") == schema(tmp_path / "stock.db")


def test_a_migration_that_was_released_is_never_edited():
    script = ScriptDirectory.from_config(upgrade._config())
    found = {}
    for each in script.walk_revisions():
        with open(each.path, "rb") as opened:
            found[each.revision] = hashlib.sha256(opened.read()).hexdigest()
    assert found == FROZEN, "write a new migration beside the old ones, and add its hash here"
    assert script.get_current_head() == max(found)
