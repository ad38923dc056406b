import importlib
import json
import os
import re
import subprocess
import sys

import pytest
from typed import PROGRAM

from deepmine_auto import AttentionModifier
from deepmine_auto.admission import contradiction
from deepmine_auto.cli import run
from deepmine_auto.commands.plugins import CHECKED
from deepmine_auto.errors import BadInput
from deepmine_auto.host import Broken, the_host
from deepmine_auto.testing.template import PLUGINS, begin


def shown(capsys, *args, code=0):
    assert run(["plugins", *args], the_host()) == code
    return capsys.readouterr()


def test_every_plugin_is_listed_with_its_paper(capsys):
    out = shown(capsys, "list").out
    assert "sliding_window" in out
    assert "arXiv:2004.05150" in out
    assert out.splitlines()[0].split() == ["kind", "name", "version", "distribution", "source"]


def test_one_kind_is_listed_alone(capsys):
    found = json.loads(shown(capsys, "list", "--kind", "pruner", "--json").out)
    assert {each["name"] for each in found["plugins"]} >= {"asha", "median", "none"}
    assert {each["kind"] for each in found["plugins"]} == {"pruner"}
    assert found["set_aside"] == []


def test_an_unknown_kind_is_refused_with_the_nearest(capsys):
    assert "Did you mean 'attention'?" in shown(capsys, "list", "--kind", "atention", code=2).err


def test_names_are_listed_without_importing_what_is_behind_them():
    code = (
        "import sys; sys.argv = ['deepmine-auto', 'plugins', 'list', '--names']; from deepmine_auto import cli\n"
        "try: cli.main()\n"
        "finally: print([each for each in sys.modules if each.startswith('deepmine_plugins.') or each == 'torch'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "deepmine_plugins.attention.linear:Linear" in done.stdout
    assert done.stdout.splitlines()[-1] == "['deepmine_plugins.doors']"


def test_a_plugin_that_is_unknown_cannot_be_checked(capsys):
    assert "Did you mean 'sliding_window'?" in shown(capsys, "check", "slidng_window", code=2).err
    assert "'tpee' is no" in shown(capsys, "check", "tpee", code=2).err
    assert (
        "'sampler' is no kind of plugin with promises" in shown(capsys, "check", "tpe", "--kind", "sampler", code=2).err
    )


def test_why_a_plugin_is_set_aside_is_told_where_it_is_checked(capsys, monkeypatch):
    broken = Broken("my_attention.attention:MyAttention", "deepmine-auto-my_attention", "no luck", "attention")
    monkeypatch.setattr(the_host(), "broken", [broken])
    told = "The attention 'my_attention' cannot be used: no luck. See `deepmine-auto plugins list`.\n"
    assert shown(capsys, "check", "my_attention", code=2).err == told


def test_a_plugin_that_keeps_its_promises_passes(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = json.loads(shown(capsys, "check", "sgd", "--json").out)
    assert (found["kind"], found["name"]) == ("optimizer", "sgd")
    assert {"promise": "its door imports no torch", "ok": True, "detail": ""} in found["promises"]
    assert len(found["promises"]) > 3
    assert list(tmp_path.iterdir()) == []


# -- new ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["my-attention", "class", "9lives", "", "Upper", "a.b", "../up", "none", "_", "_1", "torch"]
)
def test_a_name_that_is_no_identifier_is_refused(name, tmp_path):
    with pytest.raises(BadInput, match=r"is no name for a plugin\. Use small letters"):
        begin(name, "attention", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_is_refused(tmp_path, capsys):
    told = shown(capsys, "new", "linear", "--kind", "attention", "--output", str(tmp_path), code=2).err
    assert told == "The attention 'linear' is there already, and of two neither is used. Give another name.\n"
    assert [*tmp_path.iterdir()] == []


def test_a_place_where_nothing_can_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=r"my_attention cannot be written: Not a directory\. Give another --output"):
        begin("my_attention", "attention", tmp_path / "file")


def test_an_existing_folder_is_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(BadInput, match=r"mine exists already\. Give another name"):
        begin("mine", "task", tmp_path)
    assert list((tmp_path / "mine").iterdir()) == []


def test_an_unknown_kind_cannot_be_begun(tmp_path, capsys):
    told = shown(capsys, "new", "mine", "--kind", "attentoin", "--output", str(tmp_path), code=2).err
    assert "Did you mean 'attention'?" in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", PLUGINS)
def test_a_new_plugin_is_four_short_files(kind, tmp_path, capsys):
    assert "is written" in shown(capsys, "new", "mine", "--kind", kind, "--output", str(tmp_path)).out
    made = [each for each in (tmp_path / "mine").rglob("*") if each.is_file()]
    assert len(made) == 4
    assert all(len(each.read_text().splitlines()) < 45 for each in made)
    assert not any(re.search("<[A-Z]+>", each.read_text()) for each in made)


def installed(folder):
    """Put a fake installation beside the sources, as an editable one would."""
    info = folder / "deepmine_auto_mine-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: deepmine-auto-mine\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[deepmine_auto]\nmine = mine\n")


EACH = ["optimizer", *(pytest.param(kind, marks=pytest.mark.slow) for kind in PLUGINS if kind != "optimizer")]


@pytest.mark.parametrize("kind", EACH)
def test_a_new_plugin_is_found_and_keeps_every_promise(kind, tmp_path):
    folder = begin("mine", kind, tmp_path)
    installed(folder)
    args = [*PROGRAM, "plugins", "check", "mine", "--json"]
    done = subprocess.run(args, cwd=tmp_path, env=with_path(folder), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    promises = json.loads(done.stdout)["promises"]
    assert sum(each["ok"] is True for each in promises) >= 5


def test_a_new_attention_variant_takes_every_modifier_of_ours(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(begin("fresh_attention", "attention", tmp_path)))
    variant = importlib.import_module("fresh_attention.attention").FreshAttention
    offered = [each.thing for each in the_host().offered("attention").values()]
    modifiers = [each for each in offered if issubclass(each, AttentionModifier)]
    assert len(modifiers) > 5
    assert not [why for each in modifiers if (why := contradiction(variant, each))]


def with_path(folder):
    """The environment in which what is in a folder counts as installed."""
    return {**os.environ, "PYTHONPATH": str(folder)}


@pytest.mark.parametrize(
    "args", [["plugins", "check"], ["search", "--trials", "1", "--attention"]], ids=["check", "search"]
)
@pytest.mark.parametrize("file", ["attention", "__init__"])
def test_why_a_new_plugin_cannot_be_imported_is_told_where_it_is_asked_for(file, args, tmp_path):
    folder = begin("mine", "attention", tmp_path)
    installed(folder)
    spoilt = folder / "mine" / f"{file}.py"
    spoilt.write_text(f"import nothing_of_this_name\n{spoilt.read_text()}")
    done = subprocess.run(
        [*PROGRAM, *args, "mine"], cwd=tmp_path, env=with_path(folder), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    what = "plugin" if file == "__init__" else "attention"
    why = "ModuleNotFoundError: No module named 'nothing_of_this_name'"
    assert f"The {what} 'mine' cannot be used: {why}. See `deepmine-auto plugins list`." in done.stderr


@pytest.mark.slow
def test_the_tests_of_a_new_plugin_pass(tmp_path):
    folder = begin("mine", "optimizer", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=folder, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_a_door_that_imports_torch_breaks_a_promise_and_ends_with_1(tmp_path):
    folder = begin("mine", "optimizer", tmp_path)
    installed(folder)
    door = folder / "mine" / "__init__.py"
    door.write_text(door.read_text().replace("from deepmine_auto import", "import torch\nfrom deepmine_auto import"))
    args = [*PROGRAM, "plugins", "check", "mine"]
    done = subprocess.run(args, cwd=tmp_path, env=with_path(folder), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "broken  its door imports no torch" in done.stdout
    assert "1 of " in done.stderr


def test_every_kind_with_promises_can_be_begun():
    assert set(CHECKED) == set(PLUGINS)
