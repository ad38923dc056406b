"""What a study records of a plugin's code changes with all that the plugin takes from its own package."""

import importlib
import sys

import pytest

from deepmine_auto.sources import hash_of

FILES = {
    "__init__.py": "",
    "plugin.py": "import json\nfrom .helping import helped\nclass Plugin: pass\n",
    "helping.py": "from .constants import ONE\ndef helped():\n    import somebodys.later\n    return ONE\n",
    "constants.py": "from . import plugin\nONE = 1\n",
    "later.py": "",
    "unrelated.py": "",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "somebodys"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield folder
    for name in [each for each in sys.modules if each.partition(".")[0] == "somebodys"]:
        del sys.modules[name]


def hashed():
    importlib.import_module("somebodys.plugin")
    return hash_of("somebodys.plugin")


@pytest.mark.parametrize("file", ["plugin.py", "helping.py", "constants.py", "later.py"])
def test_a_change_of_the_plugin_or_of_what_it_imports_from_its_package_is_another_hash(package, file):
    before = hashed()
    with (package / file).open("a") as opened:
        opened.write("# changed\n")
    assert len(before) == 64
    assert hashed() != before


def test_what_it_does_not_import_is_no_part_of_it(package):
    before = hashed()
    (package / "unrelated.py").write_text("# changed\n")
    assert hashed() == before


def test_nothing_is_imported_to_find_it(package):
    hashed()
    assert "somebodys.later" not in sys.modules


def test_a_plugin_whose_files_cannot_be_read_has_no_hash(package):
    assert hash_of("nowhere.plugin") == hash_of("sys") == ""
    hashed()
    (package / "helping.py").write_text("def (")
    assert hash_of("somebodys.plugin") == ""
