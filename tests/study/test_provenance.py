"""What a study was begun with, and whether it still holds when it goes on."""

from dataclasses import dataclass, replace
from importlib.metadata import version

import pytest
from fakes import SPACE, Desk

from deepmine_auto.data import kept
from deepmine_auto.data.rows import Rows
from deepmine_auto.data.split import Split
from deepmine_auto.errors import BadInput
from deepmine_auto.space import Choice, Param, Space
from deepmine_auto.storage import tables
from deepmine_auto.study.provenance import check, may_use, plugins_in_use, record_plugins, unavailable
from deepmine_auto.study.setting_aside import as_they_are

ALL = {
    ("task", "t"), ("sampler", "tpe"), ("pruner", "asha"), ("attention", "good"), ("attention", "bad"),
    ("backbone", "encoder"), ("backbone", "other"), ("optimizer", "adamw"), ("technique", "ema"),
}  # fmt: skip


@dataclass
class Brought:
    hash: str
    distribution: str = "a-plugin"
    version: str = "1.2"


@dataclass
class FakeHost:
    """Plugins by kind and name, with their hashes."""

    hashes: dict

    def brought(self, kind, name):
        if (kind, name) not in self.hashes:
            raise BadInput(f"'{name}' is no {kind}.", "There are others.")
        return Brought(self.hashes[kind, name])

    def offered(self, kind):
        return {name: self.brought(kind, name) for each, name in self.hashes if each == kind}


@pytest.fixture
def host():
    return FakeHost(dict.fromkeys(ALL, "0"))


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def begin(desk, space=SPACE, **spec):
    study = desk.begin(space=space)
    return replace(study, spec={**study.spec, "sampler": "tpe", "pruner": "asha", **spec})


def recorded(desk, study):
    return {(row["kind"], row["name"], row["since"]): row["hash"] for row in desk.store.rows(tables.plugins, study.id)}


def told(desk):
    return [text for kind, text, _ in desk.events if kind == "changed"]


# -- what is recorded ------------------------------------------------------------------------------------------------


def test_a_study_records_every_plugin_that_it_may_use_once(desk, host):
    study = begin(desk)
    record_plugins(desk.ledger(study), host)
    ledger = desk.ledger(study)
    ledger.ask()
    record_plugins(ledger, host)
    assert recorded(desk, study) == {(kind, name, 0): "0" for kind, name in ALL}
    assert {row["version"] for row in desk.store.rows(tables.plugins, study.id)} == {"1.2"}
    assert told(desk) == []


def test_a_fixed_plugin_is_used_too():
    fixed = {"attention/kind": "good", "schedule/kind": "cosine", "technique/ema/use": True, "technique/sam/use": False}
    space = Space((), fixed)
    study = type("Study", (), {"spec": {"task": "t", "sampler": "tpe", "pruner": "asha"}})
    wanted = {("attention", "good"), ("schedule", "cosine"), ("technique", "ema")}
    assert may_use(study, space) - may_use(study, Space((), {})) == wanted


def test_every_schedule_that_may_be_drawn_is_used():
    drawn = Param("schedule/kind", Choice("cosine", "linear"), {})
    study = type("Study", (), {"spec": {"task": "t", "sampler": "tpe", "pruner": "asha"}})
    assert may_use(study, Space((drawn,), {})) >= {("schedule", "cosine"), ("schedule", "linear")}


def test_a_plugin_that_changed_is_told_and_recorded_from_that_trial_on(desk, host):
    study = begin(desk)
    record_plugins(desk.ledger(study), host)
    ledger = desk.ledger(study)
    ledger.ask()
    host.hashes["attention", "good"] = "1"
    record_plugins(ledger, host)
    assert told(desk) == ["the attention 'good' is another one than the study began with"]
    assert recorded(desk, study).items() >= {("attention", "good", 0): "0", ("attention", "good", 1): "1"}.items()
    since = as_they_are(ledger.plugins, 1)
    assert (since["attention/good"], since["attention/bad"]) == (1, 0), "its raises are counted from there"
    assert plugins_in_use(ledger)["attention", "good"] == "1"
    record_plugins(ledger, host)
    assert len(told(desk)) == 1


def test_a_plugin_that_changes_twice_before_a_trial_is_recorded_as_it_is_then(desk, host):
    study = begin(desk)
    for each in ("0", "1", "2"):
        host.hashes["attention", "good"] = each
        record_plugins(desk.ledger(study), host)
    assert recorded(desk, study)["attention", "good", 0] == "2"


def test_a_plugin_that_no_new_trial_may_use_is_in_use_no_more(desk, host):
    study = begin(desk)
    record_plugins(desk.ledger(study), host)
    without = Space((Param("attention/kind", Choice("bad"), {}), *SPACE.params[2:]), SPACE.fixed)
    desk.store.add(tables.spaces, study.id, {"since": 0, "name": "s2", "space": without.to_json()})
    assert plugins_in_use(desk.ledger(study)).keys() == ALL - {("attention", "good")}


def test_libraries_that_changed_are_told(desk, host):
    versions = {"torch": "1.0", "optuna": version("optuna"), "no-such-library": "3", "python": "2.7"}
    record_plugins(desk.ledger(begin(desk, versions=versions)), host)
    torch, gone, python = told(desk)
    assert torch == f"torch was 1.0 when the study began, and is {version('torch')}"
    assert gone == "no-such-library was 3 when the study began, and is not installed"
    assert python.startswith("python was 2.7 when the study began, and is 3.")


# -- what a resume refuses -------------------------------------------------------------------------------------------


def test_a_study_whose_plugins_are_there_goes_on(desk, host):
    check(desk.store, begin(desk), SPACE, host)


def test_a_plugin_that_is_gone_is_refused_with_what_to_install(desk, host):
    study = begin(desk)
    record_plugins(desk.ledger(study), host)
    del host.hashes["attention", "good"]
    remedy = r"Install a-plugin 1\.2, or go on without it: deepmine-auto resume study --space FILE"
    with pytest.raises(
        BadInput, match=rf"The study 'study' needs the attention 'good': 'good' is no attention\. {remedy}"
    ):
        check(desk.store, study, SPACE, host)
    check(desk.store, study, Space((Param("attention/kind", Choice("bad"), {}), *SPACE.params[2:]), {}), host)


def test_what_no_space_chooses_cannot_be_gone_without(desk, host):
    study = begin(desk)
    (kind, name) = next(each for each in host.hashes if each[0] == "sampler")
    del host.hashes[kind, name]
    with pytest.raises(BadInput, match=rf"needs the sampler '{name}': .* Install its distribution\.$"):
        check(desk.store, study, SPACE, host)


def keep(desk):
    """A study with rows in its folder, and the digest in its specification."""
    study = begin(desk)
    folder = desk.folder / "study"
    kept.keep(folder, Rows(list("abcdef"), [0, 1] * 3), {"search": Split([0, 1], [2, 3], [4, 5])})
    return replace(study, spec={**study.spec, "kept": kept.digest(folder)}), folder


def test_rows_that_are_as_they_were_are_accepted(desk, host):
    study, _ = keep(desk)
    check(desk.store, study, SPACE, host)


@pytest.mark.parametrize("name", [kept.OPEN, kept.LOCKED, kept.SPLITS])
def test_rows_that_were_changed_are_refused(desk, host, name):
    study, folder = keep(desk)
    text = (folder / name).read_text()
    (folder / name).write_text(text.replace("a", "x").replace("e", "y").replace("0", "1"))
    with pytest.raises(
        BadInput, match=r"The rows in .*study are not those that the study 'study' began with\. Restore"
    ):
        check(desk.store, study, SPACE, host)
    (folder / name).unlink()
    with pytest.raises(BadInput, match=r"The rows of the study 'study' cannot be read: .*\. Restore its folder"):
        check(desk.store, study, SPACE, host)


def test_files_that_only_changed_places_are_refused(desk, host):
    study, folder = keep(desk)
    (folder / kept.OPEN).rename(folder / "swap")
    (folder / kept.LOCKED).rename(folder / kept.OPEN)
    (folder / "swap").rename(folder / kept.LOCKED)
    with pytest.raises(BadInput, match="are not those that the study 'study' began with"):
        check(desk.store, study, SPACE, host)


# -- trials of plugins that are gone ---------------------------------------------------------------------------------


def test_a_trial_can_be_trained_where_its_own_plugins_are_there(desk, host):
    study = begin(desk)
    params = {"attention/kind": "good", "model/kind": "encoder", "optimizer/kind": "adamw"}
    assert unavailable(study, params, host) == ""
    del host.hashes["attention", "good"]
    assert unavailable(study, params, host) == "its attention 'good' is not installed"
    assert unavailable(study, {**params, "attention/kind": "bad"}, host) == ""
    del host.hashes["technique", "ema"]
    used = {**params, "attention/kind": "bad", "technique/ema/use": True}
    assert unavailable(study, used, host) == "its technique 'ema' is not installed"
    gone = {**params, "attention/kind": "bad", "schedule/kind": "mine"}
    assert unavailable(study, gone, host) == "its schedule 'mine' is not installed"
