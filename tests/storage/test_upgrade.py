"""Our tables beside Optuna's: migrated by a road of their own, and in nobody's way."""

import hashlib
import json
import sqlite3

import optuna
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from fakes import Desk

from deepmine_auto.errors import BadInput
from deepmine_auto.storage import tables, upgrade
from deepmine_auto.storage.engine import Fence, open_writer

FROZEN = {
    "0001": "97080cbf2d3738f22e95d4ce0949bff6ae9af1d7936cbcefbf9ced1b09ce013b",
    "0002": "4596e7dca06bcd987fcd8dcfe3dfd55bd905bed97fd05cd1499d7d51c0534149",
}
"""The sha256 of each migration that was released; a schema changes by a new file, never by an edit of an old one."""


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def test_the_migrated_schema_is_that_of_the_tables(desk):
    options = {"version_table": tables.VERSION_TABLE, "include_object": upgrade.is_ours, "compare_type": True}
    with desk.store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, tables.metadata) == []
        made = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE name LIKE 'deepmine_%'").scalars()
        assert set(made) == {*tables.metadata.tables, tables.VERSION_TABLE}


def test_primary_keys_are_those_of_the_tables(desk):
    """compare_metadata does not look at them."""
    with desk.store.engine.connect() as connection:
        for name, table in tables.metadata.tables.items():
            columns = connection.exec_driver_sql(f"PRAGMA table_info({name})").all()
            made = [each[1] for each in sorted(columns, key=lambda each: each[5]) if each[5]]
            assert made == [each.name for each in table.primary_key.columns], name


def test_every_table_of_ours_is_named_as_ours():
    assert all(name.startswith(tables.PREFIX) for name in (*tables.metadata.tables, tables.VERSION_TABLE))


def test_optunas_own_version_is_untouched(desk, tmp_path):
    stock = tmp_path / "stock.db"
    optuna.create_study(storage=f"sqlite:///{stock}")

    def versions(file):
        with sqlite3.connect(file) as connection:
            asked = (
                "SELECT version_num FROM alembic_version",
                "SELECT schema_version, library_version FROM version_info",
            )
            return [connection.execute(each).fetchall() for each in asked]

    assert versions(tmp_path / "studies.db") == versions(stock)


def test_stock_optuna_and_its_dashboard_open_the_file(desk, tmp_path):
    study = desk.begin()
    desk.work(study)
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    loaded = optuna.load_study(study_name="study", storage=url)
    assert [each.state for each in loaded.trials] == [each.state for each in desk.trials(study)]
    assert loaded.metric_names == ["val/f"]
    assert loaded.best_trial.state.name == "COMPLETE"
    dashboard = pytest.importorskip("optuna_dashboard")
    answer = get(dashboard.wsgi(optuna.storages.RDBStorage(url)), f"/api/studies/{loaded._study_id}")
    assert len(answer["trials"]) == 6
    assert {each["state"] for each in answer["trials"]} == {"Complete", "Pruned"}
    pruned = next(each for each in answer["trials"] if each["state"] == "Pruned")
    assert [each["step"] for each in pruned["intermediate_values"]], "its curve is shown"


def get(application, path):
    """One GET of a WSGI application, as JSON."""
    from wsgiref.util import setup_testing_defaults

    environ = {"PATH_INFO": path, "QUERY_STRING": "after=0"}
    setup_testing_defaults(environ)
    told = []
    body = b"".join(application(environ, lambda status, *_: told.append(status)))
    assert told == ["200 OK"], body
    return json.loads(body)


def test_a_file_of_a_newer_version_is_refused_with_a_sentence_and_left_as_it_is(desk):
    with sqlite3.connect(desk.folder / "studies.db") as connection:
        connection.execute(f"UPDATE {tables.VERSION_TABLE} SET version_num = '9999'")
        connection.commit()
        before = list(connection.iterdump())
    with pytest.raises(BadInput, match=r"made by a newer deepmine-auto \(schema 9999\)\. Upgrade deepmine-auto"):
        open_writer(desk.folder / "studies.db", Fence())
    with sqlite3.connect(desk.folder / "studies.db") as connection:
        assert list(connection.iterdump()) == before


def test_a_file_of_optunas_alone_gets_our_tables_and_keeps_its_studies(tmp_path):
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    optuna.create_study(study_name="older", storage=url).optimize(
        lambda trial: trial.suggest_float("x", 0, 1), n_trials=2
    )
    desk = Desk(tmp_path)
    desk.work(desk.begin())
    assert desk.store.names() == ["study"]
    assert len(optuna.load_study(study_name="older", storage=url).trials) == 2


def test_an_upgrade_done_again_changes_nothing(desk):
    with sqlite3.connect(desk.folder / "studies.db") as connection:
        before = list(connection.iterdump())
    open_writer(desk.folder / "studies.db", Fence())
    with sqlite3.connect(desk.folder / "studies.db") as connection:
        assert list(connection.iterdump()) == before


def test_a_migration_that_was_released_is_never_edited():
    script = ScriptDirectory.from_config(upgrade._config())
    found = {}
    for each in script.walk_revisions():
        with open(each.path, "rb") as opened:
            found[each.revision] = hashlib.sha256(opened.read()).hexdigest()
    assert found == FROZEN, "write a new migration beside the old ones, and add its hash here"
    assert script.get_current_head() == max(found)
