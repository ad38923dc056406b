"""The first schema: studies, sessions, reports, verdicts, attempts, reruns, events, plugins, datasets."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "deepmine_studies",
        sa.Column("study_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("result", sa.JSON()),
    )
    op.create_table(
        "deepmine_sessions",
        sa.Column("study_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started", sa.String(32), nullable=False),
        sa.Column("spent", sa.Float(), nullable=False),
    )
    op.create_table(
        "deepmine_reports",
        sa.Column("study_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("share", sa.Integer(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("checkpoint", sa.Text()),
        sa.Column("best_checkpoint", sa.Text()),
        sa.Column("seconds", sa.Float(), nullable=False),
    )
    op.create_table(
        "deepmine_verdicts",
        sa.Column("study_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("seq", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("keep", sa.Boolean(), nullable=False),
        sa.Column("value", sa.Float()),
        sa.Column("cutoff", sa.Float()),
        sa.Column("rung", sa.Integer()),
        sa.Column("cause", sa.String(16), nullable=False),
    )
    op.create_table(
        "deepmine_attempts",
        sa.Column("study_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(8), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("attempt", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
    )
    op.create_table(
        "deepmine_reruns",
        sa.Column("study_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("trial", sa.Integer(), nullable=False),
        sa.Column("repeat", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("value", sa.Float()),
        sa.Column("checkpoint", sa.Text()),
        sa.Column("seconds", sa.Float()),
        sa.Column("reason", sa.Text()),
    )
    op.create_table(
        "deepmine_events",
        sa.Column("study_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("trial", sa.Integer()),
        sa.Column("text", sa.Text(), nullable=False),
    )
    op.create_table(
        "deepmine_plugins",
        sa.Column("study_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column("since", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("distribution", sa.String(255), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    op.create_table(
        "deepmine_datasets",
        sa.Column("study_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("fingerprint", sa.String(64), primary_key=True),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("described", sa.JSON(), nullable=False),
    )
