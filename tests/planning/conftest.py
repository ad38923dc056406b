"""Where plans are made in."""

import pytest
from tiny_texts import as_csv


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with a file of texts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "moods.csv").write_text(as_csv())
    return tmp_path
