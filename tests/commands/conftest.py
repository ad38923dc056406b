"""A study of two small trials, searched once by the command itself and read by many tests."""

import json

import pytest
from typed import command, search_args


@pytest.fixture(scope="session")
def searched(tmp_path_factory):
    """The folder in which a search ended, and what it printed as JSON."""
    folder = tmp_path_factory.mktemp("searched")
    done = command(*search_args(folder, "--json"), folder=folder)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout), done.stderr
