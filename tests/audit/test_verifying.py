"""`verify`: a sound study holds, and each thing that is wrong is found by the check that looks for it."""

import errno
import hashlib
import json
import os
import shutil
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from fakes import Bomb, Desk, Killed, quick, training_is
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from deepmine_auto.audit import checks_of_ends, record, verifying
from deepmine_auto.audit.checks_of_rows import Seen
from deepmine_auto.audit.verifying import CHECKS, Check, verify
from deepmine_auto.errors import StudyHeld
from deepmine_auto.executors import inline
from deepmine_auto.messages import Ended, Reported
from deepmine_auto.objectives import Objective
from deepmine_auto.storage import tables
from deepmine_auto.study.budget import Budget
from deepmine_auto.study.finals import winner
from deepmine_plugins.pruners.asha import Asha
from deepmine_plugins.pruners.none import KeepAll

TRIALS = Budget(trials=8)


def write_checkpoint(folder):
    """A checkpoint as training writes it, without torch: files, and a manifest with their sha256."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tensors.safetensors").write_bytes(str(folder).encode())
    (folder / "state.json").write_text("{}")
    hashes = {each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in folder.iterdir()}
    (folder / "manifest.json").write_text(json.dumps(hashes))


def keeping(assignment, host):
    """The quick training, with its checkpoints on the disk; every fourth trial fills the memory."""
    for message in quick(assignment, host):
        if isinstance(message, Reported):
            write_checkpoint(Path(assignment.folder) / message.best_checkpoint)
        if assignment.kind == "trial" and assignment.number % 4 == 3 and isinstance(message, Ended):
            message = Ended("memory", reason="out of memory")
        yield message


def give(desk, study, **more):
    """Complete the specification of a study as a search writes it."""
    spec = {"budget": {"trials": 8}, "sampler": "tpe", "pruner": "asha", **more}
    desk.store.reopen(study.id, {**study.spec, **spec})
    return desk.store.study(study.name)


def concluded(desk, agenda):
    """Write the result that the finals name, without opening a test."""
    history = agenda.ledger.history
    won = winner(agenda.finalists(), history.reruns.values(), history.best_values(), history.direction)
    facts = {
        "trials": len(history.trials),
        "reruns": sum(row["state"] == "COMPLETE" for row in history.reruns.values()),
    }
    result = {"winner": won.trial, "rerun": won.rerun, "facts": facts, "seconds": 100.0}
    desk.store.set_result(agenda.ledger.study.id, result)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The folder of a finished study, with its checkpoints; tests copy it."""
    folder = tmp_path_factory.mktemp("sound")
    desk = Desk(folder)
    study = give(desk, desk.begin())
    concluded(desk, desk.work(study, TRIALS, keeping))
    desk.store.engine.dispose()
    return folder


@pytest.fixture
def desk(sound, tmp_path):
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    return Desk(tmp_path)


def seen(desk, *, driven=False, pruner=None, **more):
    folder = desk.folder / "study"
    return Seen(record.read(desk.store, "study"), pruner or desk.pruner, folder, driven, **more)


def wrong(desk, **more):
    """What does not hold, by check."""
    return {each.name: each.wrong for each in verify(seen(desk, **more)) if each.wrong}


def change(desk, *statements):
    with desk.store.engine.begin() as connection:
        for each in statements:
            connection.execute(text(each))


# -- what holds --------------------------------------------------------------------------------------------------------


def test_a_sound_study_holds_and_every_check_has_looked_at_something(desk):
    checks = verify(seen(desk))
    assert [each.name for each in checks if each.wrong] == []
    assert [each.name for each in checks if not each.counted] == []
    assert len(checks) == len(CHECKS)


def test_what_was_looked_at_is_counted(desk):
    counted = {each.name: each.counted for each in verify(seen(desk))}
    found = record.read(desk.store, "study")
    assert counted["params"] == counted["curves"] == counted["ends"] == len(found.trials_by_number) == 8
    assert counted["order"] == len(found.rows_by_table["deepmine_reports"])
    assert counted["verdicts"] == len(found.rows_by_table["deepmine_verdicts"])
    assert counted["reruns"] == 9


def test_an_unfinished_study_holds_while_a_driver_is_alive(tmp_path):
    desk = Desk(tmp_path)
    agenda = desk.agenda(give(desk, desk.begin()), TRIALS, slots=2)
    first, second = agenda.next(), agenda.next()
    for message in list(keeping(first, None))[:2]:
        agenda.heard(first.key, message)
    assert wrong(desk, driven=True) == {}
    told = "is RUNNING, and no driver is alive: `resume` goes on with it, and `studies stop` ends it"
    assert wrong(desk) == {"running": tuple(f"trial {each.number} {told}" for each in (first, second))}


@pytest.mark.parametrize("reports", [0, 1, 2])
def test_a_trial_that_the_deadline_ended_between_two_reports_holds(tmp_path, reports):
    desk = Desk(tmp_path)
    agenda = desk.agenda(give(desk, desk.begin()), TRIALS)
    trial = agenda.next()
    for message in list(keeping(trial, None))[:reports]:
        agenda.heard(trial.key, message)
    agenda.ledger.stop_at_deadline(trial.key)
    assert wrong(desk) == {}


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_a_study_holds_wherever_its_driver_was_killed(data, tmp_path_factory):
    desk = Desk(tmp_path_factory.mktemp("killed"), fence=Bomb())
    study = give(desk, desk.begin())
    desk.fence.left = data.draw(st.integers(2, 120))
    try:
        desk.work(study, Budget(trials=4), keeping)
    except Killed:
        desk.fence.left = None
    desk.fence.left = None
    assert wrong(desk, driven=True) == {}
    desk.work(study, Budget(trials=4), keeping)
    assert wrong(desk) == {}


# -- what does not -----------------------------------------------------------------------------------------------------

REPORTS, VERDICTS = "deepmine_reports", "deepmine_verdicts"
PRUNED = "(SELECT number FROM deepmine_verdicts WHERE keep = 0 LIMIT 1)"
COMPLETE = "(SELECT trial_id FROM trials WHERE state = 'COMPLETE' LIMIT 1)"

SABOTAGES = {
    "a report is lost": ("order", [f"DELETE FROM {REPORTS} WHERE kind = 'rerun' AND step = 1 AND number = 8"]),
    "a report is of an attempt that was not made": (
        "order", [f"UPDATE {REPORTS} SET attempt = 7 WHERE seq = 2"]),
    "an epoch is lost": ("sessions", [
        "UPDATE deepmine_sessions SET epoch = 2", "UPDATE deepmine_attempts SET epoch = 2"]),
    "an attempt is of an epoch that never was": ("attempts", [
        "UPDATE deepmine_attempts SET epoch = 9 WHERE number = 1"]),
    "an attempt is counted twice": ("attempts", [
        "INSERT INTO deepmine_attempts SELECT study_id, kind, number, 3, epoch, because, halvings, saved "
        "FROM deepmine_attempts WHERE number = 1 AND kind = 'trial'"]),
    "a param lies outside its range": ("params", [
        "UPDATE trial_params SET param_value = 5.0 WHERE param_name = 'optimizer/adamw/lr' AND trial_id = 1"]),
    "a param is lost": ("params", ["DELETE FROM trial_params WHERE param_name = 'model/kind' AND trial_id = 2"]),
    "a trial is lost": ("params", [
        "UPDATE trials SET number = 20 WHERE number = 7",
        "UPDATE deepmine_attempts SET number = 20 WHERE number = 7 AND kind = 'trial'",
        "UPDATE deepmine_verdicts SET number = 20 WHERE number = 7",
        "UPDATE deepmine_reports SET number = 20 WHERE number = 7 AND kind = 'trial'"]),
    "a curve shows another value": ("curves", [
        "UPDATE trial_intermediate_values SET intermediate_value = 0.123 WHERE trial_id = 2 AND step = 1"]),
    "a curve lacks a point": ("curves", [
        f"DELETE FROM trial_intermediate_values WHERE step = 3 AND trial_id = {COMPLETE}"]),
    "a verdict is lost": ("verdicts", [f"DELETE FROM {VERDICTS} WHERE keep = 1 AND seq = 1"]),
    "a verdict has another cutoff": ("verdicts", [
        f"UPDATE {VERDICTS} SET cutoff = 0.0001 WHERE keep = 1 AND cutoff IS NOT NULL"]),
    "a verdict is on no report": ("verdicts", [f"INSERT INTO {VERDICTS} SELECT study_id, 9999, number, keep, value, "
                                  f"cutoff, rung, cause FROM {VERDICTS} WHERE seq = 1"]),
    "a trial has the wrong state": ("ends", [
        "UPDATE trials SET state = 'FAIL' WHERE state = 'PRUNED' AND number = (SELECT MAX(number) FROM "
        "trials WHERE state = 'PRUNED')"]),
    "a trial has another value": ("ends", [f"UPDATE trial_values SET value = 0.5 WHERE trial_id = {COMPLETE}"]),
    "a trial failed for no reason": ("ends", [
        "DELETE FROM trial_user_attributes WHERE \"key\" = 'cause' AND trial_id = 4"]),
    "a trial ended against its verdict": ("ends", [
        "UPDATE trial_user_attributes SET value_json = '\"deadline\"' WHERE value_json = '\"pruned\"'"]),
    "a rerun is lost": ("winner", [
        "DELETE FROM deepmine_reruns WHERE number = 8",
        f"DELETE FROM {REPORTS} WHERE kind = 'rerun' AND number = 8"]),
    "a rerun is of a trial whose turn it was not": ("reruns", [
        "UPDATE deepmine_reruns SET trial = 3 - trial WHERE number = 8"]),
    "a rerun has another value": ("reruns", [
        "UPDATE deepmine_reruns SET value = value + 0.000001 WHERE trial = (SELECT trial FROM deepmine_reruns "
        "WHERE number = 8) AND number = 8"]),
    "a rerun failed for no reason": ("reruns", [
        "UPDATE deepmine_reruns SET state = 'FAIL', reason = '' WHERE number = 8",
        "UPDATE deepmine_studies SET result = json_set(result, '$.facts.reruns', 8)"]),
    "another winner was named": ("winner", ["UPDATE deepmine_studies SET result = json_set(result, '$.rerun', 4)"]),
    "a trial ended by no verdict": ("ends", [
        "UPDATE trial_user_attributes SET value_json = '\"limit\"' WHERE \"key\" = 'cause' AND trial_id = 4",
        "UPDATE trials SET state = 'PRUNED' WHERE trial_id = 4"]),
}  # fmt: skip


@pytest.mark.parametrize("name", SABOTAGES)
def test_what_is_wrong_with_rows_is_found_by_its_check_alone(desk, name):
    check, statements = SABOTAGES[name]
    change(desk, *statements)
    found = wrong(desk)
    assert found.keys() == {check}, found


def spoil_a_byte(checkpoint):
    file = checkpoint / "tensors.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"~")


def spoil_the_manifest(checkpoint):
    (checkpoint / "manifest.json").write_text("[]")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (spoil_a_byte, "tensors.safetensors is not what was written"),
        (spoil_the_manifest, "manifest.json is not what was written"),
        (
            lambda checkpoint: (checkpoint / "state.json").unlink(),
            "state.json cannot be read: No such file or directory",
        ),
        (shutil.rmtree, "manifest.json cannot be read: No such file or directory"),
    ],
)
def test_a_checkpoint_that_may_still_be_needed_is_read_byte_for_byte(desk, spoil, told):
    kept = sorted((desk.folder / "study" / "checkpoints").glob("rerun-*/attempt-*/step-*"))
    spoil(kept[0])
    assert wrong(desk) == {"checkpoints": (f"{kept[0].relative_to(desk.folder / 'study')}: {told}",)}


def test_a_disk_that_fails_in_the_middle_of_a_file_is_damage(tmp_path, monkeypatch):
    def fails(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    write_checkpoint(tmp_path / "step-1")
    monkeypatch.setattr(checks_of_ends, "sha256", fails)
    assert checks_of_ends.damage_of(tmp_path / "step-1") == "step-1 cannot be read: Input/output error"


def test_a_checkpoint_that_nothing_needs_any_more_is_not_missed(desk):
    seen_before = {each.name: each.counted for each in verify(seen(desk))}["checkpoints"]
    assert seen_before == 9 + 3, "one of each rerun, and those of the finalists"
    assert not wrong(desk)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"budget": {"trials": 7}}, "there are 8 trials of 7"),
        ({"budget": {"seconds": 99.0}}, "it took 100.0 s of 99 s"),
        ({"budget": {"gpu_hours": 0.5}}, "it took 2.000 GPU hours of 0.5"),
    ],
)
def test_a_budget_that_was_overdrawn_is_told(desk, spec, told):
    study = desk.store.study("study")
    give(desk, study, **spec)
    desk.store.set_result(study.id, study.result)
    change(desk, "UPDATE deepmine_sessions SET spent = 3600, gpus = 2")
    assert wrong(desk) == {"budget": (told,)}


def test_another_pruner_gives_other_verdicts(desk):
    assert wrong(desk, pruner=Asha(eta=2)).keys() == {"verdicts"}


def test_finalists_whose_plugins_are_gone_may_have_been_passed_over(tmp_path):
    desk = Desk(tmp_path, pruner=KeepAll())
    study = give(desk, desk.begin())
    agenda = desk.agenda(study, TRIALS)
    agenda.unavailable = lambda params: "gone" if params["attention/kind"] == "good" else ""
    with training_is(keeping):
        inline.run(agenda, None, lambda: None)
    assert wrong(desk).keys() == {"reruns"}
    assert wrong(desk, unavailable=agenda.unavailable) == {}


def test_plugins_are_not_looked_for_where_a_finalist_has_only_not_had_its_turn(desk):
    """Looking for them imports torch."""
    study = desk.store.study("study")
    change(
        desk,
        "DELETE FROM deepmine_reruns WHERE number > 5",
        f"DELETE FROM {REPORTS} WHERE kind = 'rerun' AND number > 5",
    )
    desk.store.reopen(study.id, study.spec)
    assert "reruns" not in wrong(desk, unavailable=lambda params: pytest.fail("looked for a plugin"))


def test_an_empty_study_holds(tmp_path):
    desk = Desk(tmp_path)
    give(desk, desk.begin())
    assert wrong(desk) == {}


# -- several objectives and limits -------------------------------------------------------------------------------------


def measured(assignment, host):
    """The quick training, with what its model costs; a wide one is slow."""
    latency = 10.0 if assignment.params.get("attention/good/width") == 4 else 1.0 + assignment.number / 100
    for message in keeping(assignment, host):
        if isinstance(message, Reported):
            message = replace(message, metrics={"f": message.value, "latency_ms": latency})
        yield message


@pytest.fixture(scope="module")
def several_objectives(tmp_path_factory):
    """The folder of a finished study of two objectives, one of which is limited."""
    folder = tmp_path_factory.mktemp("several")
    desk = Desk(folder)
    objectives = [Objective("f", "maximize"), Objective("latency_ms", "minimize")]
    (folder / "study").mkdir()
    spec = {**desk.begin("other").spec, "objectives": ["f", "latency_ms"], "limits": [["latency_ms", 1, 5.0]]}
    study = give(desk, desk.store.create_study("study", objectives, str(folder / "study"), spec))
    concluded(desk, desk.work(study, TRIALS, measured))
    desk.store.engine.dispose()
    return folder


@pytest.fixture
def several(several_objectives, tmp_path):
    shutil.copytree(several_objectives, tmp_path, dirs_exist_ok=True)
    return Desk(tmp_path)


def test_a_study_of_several_objectives_with_a_limit_holds(several):
    assert wrong(several) == {}
    ends = {each.user_attrs["cause"] for each in several.trials(several.store.study("study"))}
    assert ends >= {"limit", "budget"}


@pytest.mark.parametrize(
    ("check", "statement"),
    [
        ("ends", f"UPDATE trial_values SET value = 0.5 WHERE objective = 1 AND trial_id = {COMPLETE}"),
        ("curves", f"INSERT INTO trial_intermediate_values SELECT 1, {COMPLETE}, 1, 0.5, 'FINITE'"),
        ("verdicts", "UPDATE deepmine_verdicts SET cause = 'pruned' WHERE cause = 'limit'"),
    ],
)
def test_what_is_wrong_with_a_study_of_several_objectives_is_found(several, check, statement):
    change(several, statement)
    assert check in wrong(several)


def scored(assignment, host):
    """The quick training, with a score beside the objective, which every third trial and every third rerun misses."""
    for message in keeping(assignment, host):
        if isinstance(message, Reported):
            message = replace(message, metrics={"f": message.value, "g": float(assignment.number % 3 > 0)})
        yield message


@pytest.fixture
def limited(tmp_path):
    """A finished study with a limit on a score, which is looked at when all is trained: no verdict tells of it."""
    desk = Desk(tmp_path, pruner=KeepAll())
    concluded(desk, desk.work(give(desk, desk.begin(), limits=[["g", -1, 0.5]]), TRIALS, scored))
    return desk


def test_a_study_in_which_trials_and_reruns_missed_a_limit_on_a_score_holds(limited):
    assert wrong(limited) == {}
    study = limited.store.study("study")
    assert {each.user_attrs["cause"] for each in limited.trials(study)} == {"limit", "budget", "memory"}
    assert [row["state"] for row in limited.store.rows(tables.reruns, study.id)] == ["FAIL", "COMPLETE", "COMPLETE"] * 3


def test_a_rerun_that_counts_over_a_limit_is_found(limited):
    value = f"(SELECT MAX(value) FROM {REPORTS} WHERE kind = 'rerun' AND number = 0)"
    change(limited, f"UPDATE deepmine_reruns SET state = 'COMPLETE', value = {value} WHERE number = 0")
    assert wrong(limited)["reruns"] == ("rerun 0 counts, and is over a limit",)


# -- reading while it is written ---------------------------------------------------------------------------------------


def test_a_record_is_of_one_moment_even_where_rows_are_written_meanwhile(desk, monkeypatch):
    trials, once = desk.store.trials, []

    def written_meanwhile(study_id):
        if not once:
            once.append(change(desk, f"DELETE FROM {VERDICTS} WHERE seq = 1"))
        return trials(study_id)

    monkeypatch.setattr(desk.store, "trials", written_meanwhile)
    found = record.read(desk.store, "study")
    assert found.rows_by_table[VERDICTS] == desk.store.rows(tables.verdicts, found.study.id)


def test_a_study_that_never_rests_is_not_read_by_half(desk, monkeypatch):
    counted = count(1000)
    monkeypatch.setattr(desk.store, "trials", lambda _: change(
        desk, f"UPDATE deepmine_sessions SET spent = {next(counted)}") or [])  # fmt: skip
    with pytest.raises(StudyHeld, match="'study' changes faster than it can be read"):
        record.read(desk.store, "study")


def test_what_a_driver_has_changed_between_two_looks_is_no_fault(monkeypatch):
    looks = [[Check("checkpoints", 3, ("swept", "torn"))], [Check("checkpoints", 4, ("torn", "just begun"))]]
    monkeypatch.setattr(verifying, "_looked", lambda *_: looks.pop(0))
    assert verifying.verify_study(None, "study", None) == [Check("checkpoints", 4, ("torn",))]
    assert looks == []


def test_what_holds_is_looked_at_once(monkeypatch):
    looks = [[Check("checkpoints", 3, ())]]
    monkeypatch.setattr(verifying, "_looked", lambda *_: looks.pop(0))
    assert verifying.verify_study(None, "study", None) == [Check("checkpoints", 3, ())]
