"""Bring our tables to this version's schema, beside Optuna's and without disturbing them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from deepmine_auto.errors import BadInput
from deepmine_auto.storage.tables import PREFIX, VERSION_TABLE


def is_ours(_object: object, name: str | None, kind: str, *_: Any) -> bool:
    """Whether a table is ours; Alembic must not look at Optuna's."""
    return kind != "table" or bool(name and name.startswith(PREFIX))


def upgrade(connection: Connection) -> None:
    """Create or upgrade our tables. Raises BadInput if a newer version of us made them."""
    config = _config()
    config.attributes["connection"] = connection
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    found, script = context.get_current_revision(), ScriptDirectory.from_config(config)
    known = {each.revision for each in script.walk_revisions()}
    if found is not None and found not in known:
        raise BadInput(f"This database was made by a newer deepmine-auto (schema {found}).", "Upgrade deepmine-auto.")
    if found != script.get_current_head():
        command.upgrade(config, "head")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config
