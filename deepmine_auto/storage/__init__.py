"""The study database: engines set right, our own tables, and every query."""
