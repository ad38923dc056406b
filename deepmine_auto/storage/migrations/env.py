"""What Alembic runs: our tables only, with a version table of our own, over the connection that it is given."""

from alembic import context

from deepmine_auto.storage.tables import VERSION_TABLE, metadata
from deepmine_auto.storage.upgrade import is_ours

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    include_object=is_ours,
)
context.run_migrations()
