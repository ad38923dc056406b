"""Bring our tables to this version's schema, beside Optuna's and without disturbing them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from optuna import __version__ as optuna_version
from optuna.storages import RDBStorage
from sqlalchemy import Connection, delete, select, text

from deepmine_auto.errors import BadInput
from deepmine_auto.storage.said import Said
from deepmine_auto.storage.tables import PREFIX, VERSION_TABLE, metadata


def is_ours(_object: object, name: str | None, kind: str, *_: Any) -> bool:
    """Whether a table is ours; Alembic must not look at Optuna's."""
    return kind != "table" or bool(name and name.startswith(PREFIX))


def schema_of(connection: Connection) -> str | None:
    """The revision of our tables in a database; None where there are none."""
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()


def standing(connection: Connection) -> str:
    """The schema of a database in words, and what becomes of an older one."""
    found, newest = schema_of(connection), ScriptDirectory.from_config(_config()).get_current_head()
    if found == newest:
        return f"schema {found}"
    return f"schema {found}, which the next search upgrades to {newest}" if found else "of Optuna alone"


def refuse_older(connection: Connection, place: object) -> None:
    """Raise BadInput where our tables are of another version: only a writer may upgrade them."""
    found, newest = schema_of(connection), ScriptDirectory.from_config(_config()).get_current_head()
    if found not in (None, newest):
        what = f"{place} has schema {found}, and this deepmine-auto reads {newest}."
        raise BadInput(what, "The next search or resume upgrades it.")


def upgrade(connection: Connection) -> None:
    """Create or upgrade our tables, in the transaction that is open. Raises BadInput if a newer version made them."""
    config = _config()
    config.attributes["connection"] = connection
    found, script = schema_of(connection), ScriptDirectory.from_config(config)
    known = {each.revision for each in script.walk_revisions()}
    if found is not None and found not in known:
        raise BadInput(f"This database was made by a newer deepmine-auto (schema {found}).", "Upgrade deepmine-auto.")
    if found != script.get_current_head():
        command.upgrade(config, "head")
    _forget_deleted(connection)


def _forget_deleted(connection: Connection) -> None:
    """Forget our rows of studies that Optuna's tools deleted: SQLite gives their numbers to new studies."""
    known = select(text("study_id")).select_from(text("studies"))
    for table in metadata.sorted_tables:
        connection.execute(delete(table).where(table.c.study_id.not_in(known)))


def refuse_foreign(storage: RDBStorage, place: Said) -> None:
    """Raise BadInput if a database has other tables than this Optuna, or has studies by one that wrote local times."""
    try:
        storage._version_manager.check_table_schema_compatibility()
    except RuntimeError as error:
        raise BadInput(f"{place} has the tables of another Optuna than {optuna_version}.", _remedy(error)) from error
    with storage.engine.connect() as connection:
        made = connection.execute(text("SELECT library_version FROM version_info")).scalar_one()
        count = connection.execute(text("SELECT COUNT(*) FROM studies")).scalar_one()
    if count and int(made.partition(".")[0]) < 5:
        what = f"{place} has studies of Optuna {made}, which wrote times of its own time zone."
        raise BadInput(what, f"Keep them apart: give {place.option} another database.")


def _remedy(error: RuntimeError) -> str:
    old = "storage upgrade" in str(error)
    return "Upgrade it: optuna storage upgrade --storage URL" if old else "Upgrade Optuna: pip install -U optuna"


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config
