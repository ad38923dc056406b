"""The study database: where it is, engines set right, our own tables, and every query."""

USUAL = "deepmine-auto/studies.db"
"""Where studies are kept unless the user says otherwise: below the folder that the command is typed in."""

VARIABLE = "DEEPMINE_AUTO_STORAGE"
"""The environment variable that may say otherwise, with a password."""
