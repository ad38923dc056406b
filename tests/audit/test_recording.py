"""An exported study: one JSON file that says all that a replay needs, and nothing of the machine it was made on."""

import json
import re
from contextlib import suppress

import pytest
from fakes import Desk, ending
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from deepmine_auto.audit import record
from deepmine_auto.audit.recording import read_file, to_json, write
from deepmine_auto.errors import BadInput
from deepmine_auto.storage import tables
from deepmine_auto.study.budget import Budget

TRACEBACK = (
    'Traceback (most recent call last):\n  File "/home/someone/secret/plugin.py", line 3\nOSError: no /home/someone/x'
)


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path)
    study = desk.begin()
    more = {"budget": {"trials": 4}, "sampler": "tpe", "pruner": "asha", "workers": {"address": "ray://10.1.2.3:1"}}
    more |= {"space_name": "/home/someone/space.toml", "originals": {"/home/someone/models/bert": "0" * 64}}
    desk.store.reopen(study.id, {**study.spec, **more})
    desk.work(desk.store.study("study"), Budget(trials=4), ending("memory", after=2, reason=TRACEBACK))
    desk.store.add_event(study.id, "note", f"written to {desk.folder}/study/outbox.jsonl, see https://example.org/a/b")
    return desk


def exported(desk):
    return json.loads(write(desk.store, "study", str(desk.folder / "study.json")).read_text())


def strings(plain):
    if isinstance(plain, str):
        yield plain
    elif isinstance(plain, dict):
        for name, each in plain.items():
            yield from strings(name)
            yield from strings(each)
    elif isinstance(plain, list):
        for each in plain:
            yield from strings(each)


def test_an_export_holds_every_row(desk):
    found = exported(desk)
    study = desk.store.study("study")
    assert found["format"] == 1
    assert [each["number"] for each in found["trials"]] == [0, 1, 2, 3]
    assert [each["params"] for each in found["trials"]] == [each.params for each in desk.trials(study)]
    for each in record.KEPT:
        name = each.name.removeprefix(tables.PREFIX)
        assert len(found[name]) == len(desk.store.rows(each, study.id)), name
    assert found["spec"]["space"] == study.spec["space"]


def test_every_table_of_ours_is_in_an_export():
    assert {each.name for each in record.KEPT} == set(tables.metadata.tables) - {tables.studies.name}


def test_an_export_says_nothing_of_the_machine_it_was_made_on(desk):
    (session, *_), found = desk.store.sessions(desk.store.study("study").id), exported(desk)
    texts = list(strings(found))
    assert not [each for each in texts if "/home" in each or str(desk.folder) in each or "10.1.2.3" in each]
    assert not [each for each in texts if re.match(r"/\w", each)]
    assert session["host"] not in texts
    assert {"host", "pid", "study_id"}.isdisjoint(found["sessions"][0])
    assert found["spec"]["space_name"] == "space.toml"
    assert "written to ./outbox.jsonl, see https://example.org/a/b" in [each["text"] for each in found["events"]]
    told = [each.get("reason") for each in [*(row["attributes"] for row in found["trials"]), *found["reruns"]]]
    assert set(told) - {None} == {"OSError: no x"}


def test_what_was_exported_is_read_again_as_it_was(desk):
    there = record.read(desk.store, "study")
    again = read_file(str(write(desk.store, "study", str(desk.folder / "study.json"))))
    assert to_json(again) == to_json(there)
    assert [each.params for each in again.trials_by_number] == [each.params for each in there.trials_by_number]
    assert again.history.reports == there.history.reports
    assert [each.distributions for each in again.trials_by_number] == [each.distributions for each in there.trials(0)]


def test_the_same_study_is_exported_to_the_same_bytes(desk):
    files = [write(desk.store, "study", str(desk.folder / name)).read_bytes() for name in ("a.json", "b.json")]
    assert files[0] == files[1]


def test_numbers_that_json_does_not_have_become_null(desk):
    study = desk.store.study("study")
    with desk.store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE deepmine_reports SET metrics = '{\"f\": Infinity}' WHERE seq = 1")
    assert desk.store.rows(tables.reports, study.id)[0]["metrics"]["f"] == float("inf")
    assert exported(desk)["reports"][0]["metrics"] == {"f": None}


# -- what cannot be ----------------------------------------------------------------------------------------------------


def test_a_file_that_exists_is_not_overwritten(desk):
    (desk.folder / "there.json").write_text("mine")
    with pytest.raises(BadInput, match=r"there\.json exists\. Name another --output"):
        write(desk.store, "study", str(desk.folder / "there.json"))
    assert (desk.folder / "there.json").read_text() == "mine"


def test_where_nothing_can_be_written_nothing_is_left(desk, monkeypatch):
    from deepmine_auto.audit import recording

    with pytest.raises(BadInput, match="cannot be written: No such file or directory"):
        write(desk.store, "study", str(desk.folder / "nowhere" / "study.json"))
    before = set(desk.folder.iterdir())

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recording, "flush", full)
    with pytest.raises(BadInput, match="cannot be written: No space left on device"):
        write(desk.store, "study", str(desk.folder / "study.json"))
    assert set(desk.folder.iterdir()) == before


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[]", r"x\.json is no exported study\. Make one: deepmine-auto studies export"),
        ('{"format": 2}', r"was exported in format 2, and this version reads 1\. Upgrade deepmine-auto"),
        ('{"format": 1}', "was changed after the study was exported"),
    ],
)
def test_what_is_no_export_is_refused_with_a_sentence(tmp_path, text, told):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(BadInput, match=told) as refused:
        read_file(str(tmp_path / "x.json"))
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_refused_with_a_sentence(tmp_path):
    with pytest.raises(BadInput, match=r"no\.json cannot be read as JSON: .*No such file"):
        read_file(str(tmp_path / "no.json"))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    desk = Desk(tmp_path_factory.mktemp("whole"))
    desk.work(desk.begin(), Budget(trials=2))
    return write(desk.store, "study", str(desk.folder / "study.json"))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_whatever_is_changed_in_a_file_it_is_refused(file, data):
    whole = file.read_text()
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[:at] + data.draw(st.sampled_from('0a"-')) + whole[at + 1 :]
    spoilt = file.with_name("spoilt.json")
    spoilt.write_text(changed)
    assume(changed != whole)
    with suppress(ValueError):
        assume(json.loads(changed) != json.loads(whole))  # blanks between values are no change
    with pytest.raises(BadInput, match=r"studies export|export the study again"):
        read_file(str(spoilt))
