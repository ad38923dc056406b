"""The host: each broken plugin is set aside with its sentence, and the others still work."""

import itertools
import sys
from importlib.metadata import PathDistribution, version

import pytest

from deepmine_auto.errors import BadInput
from deepmine_auto.host import HOOKS, Broken, find_doors, open_host, the_host

NUMBERS = itertools.count()
GOOD = '''
from dataclasses import dataclass
from typing import Annotated, ClassVar
from deepmine_auto import AttentionCore, Caps, Float, Int

@dataclass(frozen=True, kw_only=True)
class Good(AttentionCore):
    """A plugin."""
    name: ClassVar[str] = "NAME"
    source: ClassVar[str] = "tests"
    caps: ClassVar[Caps] = Caps()
    width: Annotated[int, Int(1, 4)] = 2
    def build(self, shape):
        return None
'''
DOOR = """
from deepmine_auto import hookimpl

@hookimpl
def attentions():
    return ("ROOM:Good",)
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Makes distributions with a door and a room, importable from tmp_path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("DEEPMINE_AUTO_PLUGINS", raising=False)
    made = []

    def install(name, door=DOOR, room=GOOD, entry=None, requires=(), plugin=None):
        at = next(NUMBERS)
        (tmp_path / f"door{at}.py").write_text(door.replace("ROOM", f"room{at}"))
        (tmp_path / f"room{at}.py").write_text(room.replace("NAME", plugin or name.replace("-", "_")))
        info = tmp_path / f"{name}-{at}.dist-info"
        info.mkdir()
        needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.{at}\n{needs}")
        (info / "entry_points.txt").write_text(f"[deepmine_auto]\n{entry or name} = door{at}\n")
        made.append(PathDistribution(info))
        return made

    yield install
    for each in [name for name in sys.modules if name.startswith(("door", "room")) and name[4:].isdigit()]:
        del sys.modules[each]


def quarantined(host):
    """What was set aside, and why."""
    return {each.what: each.why for each in host.broken}


def opened(installed_list, kind="attention"):
    """A host, after a kind was loaded."""
    host = open_host(installed_list)
    host.offered(kind)
    return host


def test_a_plugin_is_found_by_its_entry_point_and_says_who_brought_it(installed):
    host = opened(installed("birds"))
    brought = host.brought("attention", "birds")
    assert (brought.distribution, brought.kind, brought.source) == ("birds", "attention", "tests")
    assert brought.version.startswith("1.")
    assert len(brought.hash) == 64
    assert host.get("attention", "birds")().params() == {"width": 2}
    assert not host.broken


# -- doors -------------------------------------------------------------------------------------------------------------

BROKEN_DOORS = {
    "import": ("import nothing_of_this_name\n" + DOOR, "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
    "exit": ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
    "syntax": ("def (", "SyntaxError: invalid syntax"),
    "misspelt": (DOOR.replace("def attentions", "def attentoins"), "unknown hook 'attentoins'"),
    "signature": (
        DOOR.replace("attentions()", "attentions(what)"),
        "Argument(s) {'what'} are declared in the hookimpl",
    ),
}


@pytest.mark.parametrize("fault", BROKEN_DOORS)
def test_a_broken_door_is_set_aside_with_its_sentence_and_the_others_open(installed, fault):
    door, why = BROKEN_DOORS[fault]
    installed("amiss", door=door)
    host = opened(installed("birds"))
    assert why in quarantined(host)["amiss"] or why in str(host.broken), quarantined(host)
    assert set(host.offered("attention")) == {"birds"}
    assert [each.distribution for each in host.broken] == ["amiss"]


@pytest.mark.parametrize(
    ("hook", "why"),
    [('raise RuntimeError("no")', "RuntimeError: no"), ("return 7", "TypeError"), ("exit(2)", "SystemExit")],
)
def test_a_hook_that_raises_is_set_aside_and_the_others_still_work(installed, hook, why):
    installed("amiss", door=DOOR.replace('return ("ROOM:Good",)', hook))
    host = opened(installed("birds"))
    assert why in quarantined(host)["attentions"]
    assert set(host.offered("attention")) == {"birds"}


def test_equal_entry_point_names_are_set_aside_and_both_distributions_are_named(installed):
    installed("crows", entry="same")
    installed("owls", entry="same")
    host = opened(installed("birds"))
    told = {each.distribution: each.why for each in host.broken}
    assert "the entry point 'same' is also brought by same of owls" in told["crows"]
    assert "the entry point 'same' is also brought by same of crows" in told["owls"]
    assert set(host.offered("attention")) == {"birds"}
    assert not [name for name in sys.modules if name.startswith("door") and name != find_doors_name(host)]


def find_doors_name(host):
    """The one door module that was opened."""
    (door,) = host.doors.values()
    return door.entry.value


def test_a_plugin_for_another_version_of_us_is_set_aside_before_it_is_imported(installed):
    installed("amiss", door="raise AssertionError", requires=["torch", "deepmine-auto>=99"])
    host = opened(installed("birds", requires=[f"deepmine-auto<={version('deepmine-auto')}"]))
    assert quarantined(host)["amiss"] == f"it needs deepmine-auto>=99, and this is {version('deepmine-auto')}"
    assert set(host.offered("attention")) == {"birds"}


def test_a_distribution_that_stands_twice_on_the_path_counts_once(installed):
    installed("birds")
    host = opened(installed("birds"))
    assert set(host.offered("attention")) == {"birds"}
    assert not host.broken


# -- classes -----------------------------------------------------------------------------------------------------------

UNFIT = {
    "no name": (GOOD.replace('name: ClassVar[str] = "NAME"', ""), "Good has no class attribute 'name'"),
    "no source": (GOOD.replace('source: ClassVar[str] = "tests"', ""), "Good has no class attribute 'source'"),
    "no caps": (GOOD.replace("caps: ClassVar[Caps] = Caps()", ""), "Good has no class attribute 'caps'"),
    "no build": (GOOD.replace("def build", "def make"), "Good has no method 'build'"),
    "signature": (
        GOOD.replace("self, shape", "self, heads"),
        "Good.build takes (self, heads), and must take (self, shape)",
    ),
    "default": (
        GOOD.replace("] = 2", "] = 9"),
        "Good.width is 9 by default, and its range is a whole number from 1 to 4",
    ),
    "not itself a dataclass": (
        f"{GOOD.replace('Good', 'Base')}\nclass Good(Base):\n    deeper: Annotated[int, Int(1, 4)] = 2\n",
        "Good must be a frozen dataclass: write @dataclass(frozen=True, kw_only=True)",
    ),
    "name with a slash": (GOOD.replace('"NAME"', '"my/name"'), "Good is called 'my/name': give it letters"),
    "no logarithm": (
        GOOD.replace("Int(1, 4)", "Float(0.0, 4.0, log=True)"),
        "is logarithmic, and begins at 0. Begin above 0, or leave log out.",
    ),
    "no logarithm, told late": (
        f"from __future__ import annotations\n{GOOD.replace('Int(1, 4)', 'Int(1, 4, log=True, step=2)')}",
        "has a step and is logarithmic. Leave one of them out.",
    ),
    "not frozen": (GOOD.replace("frozen=True, ", ""), "Good must be a frozen dataclass"),
    "other kind": (GOOD.replace("(AttentionCore)", "(object)"), "is no subclass of Attention"),
    "import": ("import nothing_of_this_name\n", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
    "exit": ("raise SystemExit(3)\n", "SystemExit: 3"),
    "no class": ("", "AttributeError: module"),
}


@pytest.mark.parametrize("fault", UNFIT)
def test_an_unfit_class_is_set_aside_with_its_sentence_and_the_others_still_work(installed, fault):
    room, why = UNFIT[fault]
    installed("amiss", room=room)
    host = opened(installed("birds"))
    (broken,) = host.broken
    assert (broken.kind, broken.distribution) == ("attention", "amiss")
    assert why in broken.why
    assert set(host.offered("attention")) == {"birds"}


@pytest.mark.parametrize("path", ["a.b.my_plugin:Other", "my_plugin.b:Other", "a.attention:MyPlugin", "my_plugin"])
def test_what_has_no_name_yet_is_meant_by_its_package_its_file_or_its_class(path):
    broken = Broken(path, "somebody", "no luck")
    assert broken.means("my_plugin")
    assert broken.means(path)
    assert not broken.means("")
    assert not broken.means("my_other")


def test_a_door_that_did_not_open_is_told_where_what_is_behind_it_is_asked_for(installed):
    host = opened(installed("birds", door="def ("))
    with pytest.raises(BadInput, match=r"The plugin 'birds' cannot be used: SyntaxError: .*\. See `deepmine-auto"):
        host.get("attention", "birds")


def test_of_two_plugins_of_one_name_neither_is_used_and_both_are_named(installed):
    installed("crows", plugin="same")
    installed("owls", plugin="same")
    host = opened(installed("birds"))
    assert set(host.offered("attention")) == {"birds"}
    why = quarantined(host)["same"]
    assert "crows (room" in why
    assert "owls (room" in why
    with pytest.raises(BadInput, match=r"The attention 'same' cannot be used: two plugins have this name: crows"):
        host.get("attention", "same")


def test_a_door_with_one_wrong_hook_brings_nothing_and_nobody_else_is_blamed_for_it(installed):
    """pluggy keeps the hooks that it registered before it found the wrong one."""
    wrong = "\n@hookimpl\ndef tasks(what):\n    return ()\n"
    installed("amiss", door=DOOR + wrong)
    installed("crows")
    host = opened(installed("birds"))
    assert set(host.offered("attention")) == {"birds", "crows"}
    assert [each.distribution for each in host.broken] == ["amiss"]


@pytest.mark.parametrize(
    ("needs", "fits"),
    [
        ("deepmine-auto[dashboard]>=99", False),
        ("Deepmine_Auto>=99", False),
        ("deepmine-auto>=99; extra == 'new'", True),
        ("deepmine-auto>=99; python_version < '3'", True),
        ("other>=99", True),
        ("not a requirement (>=1.*", True),
    ],
)
def test_a_range_counts_where_it_applies(installed, needs, fits):
    installed("birds", requires=[needs])
    host = opened(installed("crows"))
    assert ("birds" in host.offered("attention")) == fits


def test_a_folder_that_pip_left_behind_is_passed_over(installed, tmp_path):
    made = installed("birds")
    (tmp_path / "torn-1.dist-info").mkdir()
    made.append(PathDistribution(tmp_path / "torn-1.dist-info"))
    assert set(opened(made).offered("attention")) == {"birds"}


def test_ctrl_c_is_no_fault_of_a_plugin(installed):
    with pytest.raises(KeyboardInterrupt, match="now"):
        open_host(installed("amiss", door="raise KeyboardInterrupt('now')"))


# -- which are asked ---------------------------------------------------------------------------------------------------


def test_only_the_distributions_that_are_allowed_are_imported(installed, monkeypatch):
    installed("owls", door="raise AssertionError")
    installed("crows")
    both = installed("birds")
    monkeypatch.setenv("DEEPMINE_AUTO_PLUGINS", "Birds , crows")
    host = opened(both)
    assert set(host.offered("attention")) == {"birds", "crows"}
    assert not host.broken
    monkeypatch.setenv("DEEPMINE_AUTO_PLUGINS", "")
    assert opened(both).offered("attention") == {}


def test_ours_are_always_allowed(monkeypatch):
    monkeypatch.setenv("DEEPMINE_AUTO_PLUGINS", "")
    assert "multi_head" in open_host().offered("attention")


@pytest.mark.parametrize(
    ("kind", "name", "near"),
    [
        ("attention", "slidng_window", "sliding_window"),
        ("optimizer", "adamv", "adamw"),
        ("task", "sentimet", "sentiment"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(kind, name, near):
    with pytest.raises(BadInput, match=rf"'{name}' is no {kind}\. Did you mean '{near}'\? `deepmine-auto plugins list"):
        the_host().get(kind, name)


@pytest.mark.parametrize("kind", [each for each in HOOKS if each != "command"])
def test_every_plugin_of_ours_is_fit(kind):
    host = open_host()
    assert host.offered(kind)
    assert not [each for each in host.broken if each.kind == kind]


def test_doors_are_ordered_by_distribution_and_name_whatever_the_path(installed):
    installed("b-birds")
    both = installed("a-birds")
    for order in (both, list(reversed(both))):
        assert [each.distribution for each in find_doors(order)[0]] == ["a-birds", "b-birds"]
