"""How tests make an ensemble, and what they look at afterwards."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from click.testing import CliRunner

from deepmine_auto.commands.ensemble import ensemble
from deepmine_auto.storage import tables
from deepmine_auto.storage.store import Store

TRIALS = 3


class Formed(NamedTuple):
    """An ensemble that was made: of which study, where, and what was said."""

    study: Any
    folder: Path
    told: dict[str, Any]


def run(study, output, *args):
    """Make an ensemble by the command, and return its folder and what it said."""
    where = ["--storage", str(study.storage), "--output", str(output), "--json"]
    done = CliRunner().invoke(ensemble, [study.study, *args, *where], catch_exceptions=False)
    return Path(output), json.loads(done.stdout)


def openings(study):
    """The words of every opening of the test."""
    store = Store(study.storage.open_reader())
    events = store.rows(tables.events, store.study(study.study).id)
    return [each["text"] for each in events if each["kind"] == "test opened"]
