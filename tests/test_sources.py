"""What a study records of a plugin's code changes with all that the plugin takes from its own package."""

import importlib
import sys

import pytest

from deepmine_auto.sources import hash_of

FILES = {
    "__init__.py": "",
    "plugin.py": "import json\nfrom .helping import helped\nclass Plugin: pass\n",
    "helping.py": "from . import constants\ndef helped(): return constants.ONE\n",
    "constants.py": "from . import plugin\nONE = 1\n",
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


def plugin():
    return importlib.import_module("somebodys.plugin").Plugin


@pytest.mark.parametrize("file", ["plugin.py", "helping.py", "constants.py"])
def test_a_change_of_the_plugin_or_of_what_it_imports_from_its_package_is_another_hash(package, file):
    before = hash_of(plugin())
    with (package / file).open("a") as opened:
        opened.write("# changed\n")
    assert len(before) == 64
    assert hash_of(plugin()) != before


def test_what_it_does_not_import_is_no_part_of_it(package):
    before = hash_of(plugin())
    (package / "unrelated.py").write_text("# changed\n")
    assert hash_of(plugin()) == before


def test_a_plugin_without_a_file_has_no_hash(package):
    made = type("Made", (), {"__module__": "nowhere"})
    assert hash_of(made) == ""
    found = plugin()
    (package / "helping.py").unlink()
    assert hash_of(found) == ""
