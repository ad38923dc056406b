"""What was measured once is kept, and nothing depends on it."""

import pytest

from deepmine_auto import cache


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_what_is_kept_is_read_again_and_nothing_else_is_left(home):
    cache.write("paces", {"a": [1.0]})
    assert cache.read("paces") == {"a": [1.0]}
    assert [each.name for each in (home / ".cache" / "deepmine-auto").iterdir()] == ["paces.json"]


@pytest.mark.parametrize("content", ["", "[]", "{no json"])
def test_a_spoilt_file_is_no_file(home, content):
    cache.write("paces", {})
    (cache.folder() / "paces.json").write_text(content)
    assert cache.read("paces") == {}


def test_a_folder_that_cannot_be_written_is_done_without(home, monkeypatch):
    (home / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "file"))
    cache.write("paces", {"a": 1})
    assert cache.read("paces") == {}
