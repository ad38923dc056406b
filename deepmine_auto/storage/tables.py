"""Our own tables, in the same database as Optuna's: what Optuna has no place for.

Every Optuna row is one search trial; reruns, curves with their order, verdicts and events stand here.
"""

from sqlalchemy import JSON, Boolean, Column, Float, Integer, MetaData, String, Table, Text

PREFIX = "deepmine_"
VERSION_TABLE = f"{PREFIX}alembic_version"
"""A second revision in Optuna's own version table would make Optuna refuse the database."""

metadata = MetaData()


def _table(name: str, *columns: Column[object]) -> Table:
    return Table(
        f"{PREFIX}{name}", metadata, Column("study_id", Integer, primary_key=True, autoincrement=False), *columns
    )


def _number(name: str) -> Column[object]:
    return Column(name, Integer, primary_key=True, autoincrement=False)


studies = _table(
    "studies",
    Column("folder", Text, nullable=False),
    Column("spec", JSON, nullable=False),
    Column("result", JSON),
)
"""How a study was asked for, where its folder is, and what its finals found."""

sessions = _table(
    "sessions",
    _number("epoch"),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started", String(32), nullable=False),
    Column("spent", Float, nullable=False),
    Column("gpus", Float, nullable=False, server_default="0"),
)
"""One row each time a driver took the lock; `spent` is in seconds, with `gpus` GPUs held all the while, and the largest
epoch alone may write."""

reports = _table(
    "reports",
    _number("seq"),
    Column("kind", String(8), nullable=False),
    Column("number", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("step", Integer, nullable=False),
    Column("share", Integer, nullable=False),
    Column("value", Float, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("checkpoint", Text),
    Column("best_checkpoint", Text),
    Column("seconds", Float, nullable=False),
)
"""Curves of trials and reruns in the one order that verdicts are computed from; `share` in thousandths."""

verdicts = _table(
    "verdicts",
    _number("seq"),
    Column("number", Integer, nullable=False),
    Column("keep", Boolean, nullable=False),
    Column("value", Float),
    Column("cutoff", Float),
    Column("rung", Integer),
    Column("cause", String(16), nullable=False),
)
"""What was decided at a rung or at the deadline, written before it was acted on; `seq` is the judged report's."""

attempts = _table(
    "attempts",
    Column("kind", String(8), primary_key=True),
    _number("number"),
    _number("attempt"),
    Column("epoch", Integer, nullable=False),
    Column("because", String(16), nullable=False, server_default="begun"),
    Column("halvings", Integer, nullable=False, server_default="0"),
    Column("saved", Text),
)
"""Every time a trial or rerun was handed to a worker, and why; with how many halvings of its batch. `saved` is the
last checkpoint that the worker wrote between two reports."""

reruns = _table(
    "reruns",
    _number("number"),
    Column("trial", Integer, nullable=False),
    Column("repeat", Integer, nullable=False),
    Column("state", String(16), nullable=False, default="RUNNING"),
    Column("value", Float),
    Column("checkpoint", Text),
    Column("seconds", Float),
    Column("reason", Text),
)
"""The finalists trained again: `repeat` counts a finalist's reruns from 0 and names its split and seed."""

events = _table(
    "events",
    _number("id"),
    Column("at", String(32), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("trial", Integer),
    Column("text", Text, nullable=False),
)
"""What else happened, in words."""

plugins = _table(
    "plugins",
    Column("kind", String(16), primary_key=True),
    Column("name", String(128), primary_key=True),
    _number("since"),
    Column("distribution", String(255), nullable=False),
    Column("version", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)
"""Which plugins the study uses, from trial `since` on."""

datasets = _table(
    "datasets",
    Column("fingerprint", String(64), primary_key=True),
    Column("rows", Integer, nullable=False),
    Column("described", JSON, nullable=False),
)
"""What the study was trained on."""

spaces = _table(
    "spaces",
    _number("since"),
    Column("name", Text, nullable=False),
    Column("space", JSON, nullable=False),
)
"""The search spaces of a study: each holds from the trial number `since` on."""

evidence = _table(
    "evidence",
    _number("number"),
    Column("source", String(255), nullable=False),
    Column("params", JSON, nullable=False),
    Column("rank", Float, nullable=False),
)
"""Trials of earlier studies that the sampler sees and nobody else; `rank` is the share of its own study, from 0 for the
worst to 1 for the best."""
