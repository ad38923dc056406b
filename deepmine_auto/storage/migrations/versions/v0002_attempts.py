"""Why an attempt was made, GPUs a session, spaces that change, and evidence from earlier studies."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add columns and tables; the spaces of studies that exist stay in their specification."""
    op.add_column("deepmine_sessions", sa.Column("gpus", sa.Float(), nullable=False, server_default="0"))
    op.add_column("deepmine_attempts", sa.Column("because", sa.String(16), nullable=False, server_default="begun"))
    op.add_column("deepmine_attempts", sa.Column("halvings", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("deepmine_attempts", sa.Column("saved", sa.Text()))
    op.create_table(
        "deepmine_spaces",
        sa.Column("study_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("since", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("space", sa.JSON(), nullable=False),
    )
    op.create_table(
        "deepmine_evidence",
        sa.Column("study_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("source", sa.String(255), nullable=False),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.Column("rank", sa.Float(), nullable=False),
    )
