"""`refit` trains the winner's params on all rows that the search could see, and compares that with the winner."""

import json
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from fakes import Desk
from forming_kit import openings

import deepmine_auto
from deepmine_auto import exporting
from deepmine_auto.bundle import parity
from deepmine_auto.commands.refit import refit
from deepmine_auto.data import kept
from deepmine_auto.errors import BadInput, DeepmineError, StudyHeld
from deepmine_auto.exporting import study_in, training_of, winner_of
from deepmine_auto.host import the_host
from deepmine_auto.messages import WHOLE
from deepmine_auto.refitting import all_rows, once_more
from deepmine_auto.storage.store import now
from deepmine_auto.study.outbox import Entry, Outbox
from deepmine_auto.training import checkpoint, loop

SPACE = """
[plugins]
attention = ["multi_head"]
optimizer = ["adamw"]
technique = [{technique}]
pruner = "none"
[ranges]
"training/epochs" = 6
"training/patience" = 1
"training/batch" = [32]
"optimizer/adamw/lr" = 1e-2
"model/dim" = [32]
"model/depth" = 1
{ranges}
"""


def searched(folder, technique="", ranges=""):
    """A finished study of one trial on 240 tweets."""
    rows = the_host().get("task", "sentiment")().read(deepmine_auto.Source()).take(range(240))
    text = [json.dumps({"text": text, "label": label}) for text, label in zip(rows.inputs, rows.labels, strict=True)]
    (folder / "rows.jsonl").write_text("\n".join(text))
    (folder / "space.toml").write_text(SPACE.format(technique=technique, ranges=ranges))
    return deepmine_auto.search(
        task="text_classification",
        data=str(folder / "rows.jsonl"),
        space=str(folder / "space.toml"),
        storage=str(folder / "studies.db"),
        output=str(folder / "study"),
        executor="inline",
        trials=1,
        study="small",
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return searched(tmp_path_factory.mktemp("refitted"))


def typed(study, output, *args):
    where = ["--storage", str(study.storage), "--output", str(output)]
    return CliRunner().invoke(refit, ["small", *args, *where], catch_exceptions=False)


@pytest.fixture(scope="module")
def refitted(study, tmp_path_factory):
    """What the command made and said."""
    before = len(openings(study))
    done = typed(study, tmp_path_factory.mktemp("out") / "refit", "--json")
    assert len(openings(study)) == before + 1
    assert left_by(study) == [], "no checkpoint of it stays behind"
    return json.loads(done.stdout), done.stderr


def left_by(study):
    return [*(study.bundle.parent / "checkpoints").glob("refit-*")]


def test_it_learns_from_training_and_validation_rows_and_from_no_other(study, refitted):
    found, said = refitted
    folder = study.bundle.parent
    train, validation, both = (
        kept.rows_of(folder, *each).inputs
        for each in ((kept.SEARCH, "train"), (kept.SEARCH, "validation"), (kept.REFIT, "train"))
    )
    assert sorted(both) == sorted([*train, *validation])
    assert {*both}.isdisjoint(kept.test_rows(folder).inputs)
    assert found["facts"]["training_rows"] == len(both)
    assert f"trial 0 is trained on all {len(both)} rows" in said


@pytest.mark.parametrize(("read", "words"), [(1_900, "all 1,900 rows"), (40, "40 of 1,900 rows")])
def test_it_says_how_many_rows_it_reads(read, words):
    assert all_rows.told(read, 1_900) == words


def test_the_bundle_scores_what_was_said_and_its_card_says_beside_what(study, refitted):
    found, _ = refitted
    bundle = deepmine_auto.load(found["folder"])
    rows = kept.test_rows(study.bundle.parent)
    scores = bundle.task.scores(bundle.outputs(rows.inputs), bundle.prepared.targets(rows))
    assert scores["macro_f1"] == pytest.approx(found["evidence"]["scores"]["macro_f1"])
    winner = deepmine_auto.load(study.bundle)
    scores = winner.task.scores(winner.outputs(rows.inputs), winner.prepared.targets(rows))
    assert scores["macro_f1"] == pytest.approx(found["evidence"]["baseline"]["macro_f1"])
    card = (bundle.folder / "README.md").read_text()
    assert "lead over the winner, trial 0, which was fitted on the training rows alone" in card
    assert "The test was opened 2 times in this study" in card
    assert f"trained on all {found['facts']['training_rows']} rows" in card


def test_as_large_a_part_is_trained_as_was_best_for_the_winner(study):
    """Patience of the search ended it soon after; here it never does."""
    store, row = study_in(study.storage, "small")
    assignment = all_rows._assignment(row, store, 0, the_host())
    assert assignment.params["training/patience"] > 100
    for share in (111, 500, WHOLE):
        training = all_rows.Training(assignment, the_host())
        *_, end = all_rows._up_to(share, training)
        assert (
            end.step
            == training.progress.step
            == pytest.approx(training.steps * share / WHOLE, abs=1 + training.steps / 18)
        )
    best = all_rows.best_share(row, store)
    winner = training_of(row, store, winner_of(row, store), the_host())
    assert best == pytest.approx(WHOLE * winner.progress.best_step / winner.steps, abs=1)


@pytest.mark.usefixtures("unverified")
def test_nothing_is_left_where_the_training_fails(study, tmp_path, monkeypatch):
    def full(_training):
        raise torch.OutOfMemoryError("CUDA out of memory")
        yield

    before = len(openings(study))
    monkeypatch.setattr(all_rows.Training, "messages", full)
    told = r"The training on the rows of training and validation did not end well: .*CUDA out of memory\. Export it"
    with pytest.raises(DeepmineError, match=told):
        typed(study, tmp_path / "none")
    assert [*tmp_path.iterdir()] == left_by(study) == []
    assert len(openings(study)) == before, "the test stays locked"


@pytest.fixture
def unverified(monkeypatch):
    """Exports without the look at them in a clean process."""
    monkeypatch.setattr(parity, "verify", lambda *_: 0.0)


@pytest.mark.usefixtures("unverified")
def test_what_chooses_by_validation_rows_is_refused(tmp_path):
    study = searched(tmp_path, '"checkpoint_soup"', '"technique/checkpoint_soup/use" = true')
    told = (
        r"Trial 0 has 'checkpoint_soup', which chooses by validation rows that a refit learns from\. Export it as it is"
    )
    with pytest.raises(BadInput, match=told):
        typed(study, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def no_answer(_rows):
    raise BadInput("'x' is no answer of the training rows.", "Correct it.")


@pytest.mark.parametrize(
    ("outputs", "targets"),
    [(2, lambda _: [0, 1]), (3, lambda _: [1, 2]), (3, no_answer)],
    ids=["fewer", "other", "none"],
)
def test_what_was_fitted_on_other_classes_is_told_before_anything_is_trained(
    study, tmp_path, monkeypatch, outputs, targets
):
    made = {
        kept.REFIT: SimpleNamespace(outputs=3, targets=lambda _: [0, 1]),
        kept.SEARCH: SimpleNamespace(outputs=outputs, targets=targets),
    }
    chosen = winner_of(*reversed(study_in(study.storage, "small")))
    made[chosen.split] = made[kept.SEARCH]
    monkeypatch.setattr(all_rows, "ready", lambda _, split, *__: SimpleNamespace(prepared=made[split]))
    monkeypatch.setattr(all_rows, "built", None)
    with pytest.raises(BadInput, match="Trial 0 was trained on rows that lack a class, so that a refit cannot be"):
        typed(study, tmp_path / "none")


def test_lost_weights_are_told_before_anything_is_trained(study, tmp_path, monkeypatch):
    def damaged(_folder):
        raise checkpoint.Damaged("It is torn.")

    monkeypatch.setattr(exporting, "check", damaged)
    monkeypatch.setattr(all_rows, "built", None)
    with pytest.raises(BadInput, match=r"The weights of trial 0 are lost: It is torn\."):
        typed(study, tmp_path / "none")


def test_a_training_that_cannot_begin_is_a_sentence(study, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(once_more, "Training", full)
    told = r"The training on the rows of training and validation cannot begin: CUDA out of memory\. Export it as it is"
    with pytest.raises(DeepmineError, match=told):
        typed(study, tmp_path / "none")


@pytest.mark.usefixtures("unverified")
def test_people_are_told_how_often_the_test_was_opened_and_a_waiting_entry_is_written_first(study, tmp_path):
    row = {"id": 10_000, "at": now(), "kind": "kind", "trial": None, "text": "waited"}
    outbox = Outbox(study.bundle.parent, 1)
    outbox.append(Entry("event", row))
    done = typed(study, tmp_path / "refit")
    assert f"the locked test was opened {len(openings(study))} times in this study" in done.stdout
    assert not outbox.file.exists()


def test_a_study_that_another_process_holds_is_refused(study, tmp_path):
    with study.storage.hold("small"), pytest.raises(StudyHeld, match="is held by process"):
        typed(study, tmp_path / "none")


@pytest.mark.usefixtures("unverified")
def test_of_the_checkpoints_the_best_alone_is_kept_while_it_trains(study, tmp_path, monkeypatch):
    for name in ("BEAT_SECONDS", "SECONDS_BETWEEN_CHECKPOINTS", "WRITING_SHARE"):
        monkeypatch.setattr(loop, name, 0.0)
    monkeypatch.setattr(all_rows, "best_share", lambda *_: WHOLE)
    most = []
    plain = once_more._keep_best

    def keep_best(assignment, best):
        plain(assignment, best)
        most.append(len([*once_more.checkpoints_of(assignment).glob("*/step-*")]))

    monkeypatch.setattr(once_more, "_keep_best", keep_best)
    typed(study, tmp_path / "refit")
    assert len(most) > 10
    assert max(most) == 1


def test_a_study_without_a_winner_is_refused(tmp_path):
    desk = Desk(tmp_path)
    desk.begin("small")
    with pytest.raises(BadInput, match="The study 'small' has no winner yet"):
        typed(SimpleNamespace(storage=desk.place), tmp_path / "none")


@pytest.mark.usefixtures("unverified")
def test_room_is_asked_for_before_the_locked_test_is_opened_for_a_refit(study, tmp_path, monkeypatch):
    asked = []

    def full(folder, model):
        asked.append((folder, isinstance(model, torch.nn.Module)))
        raise DeepmineError("There is no room.")

    before = openings(study)
    monkeypatch.setattr(all_rows, "refuse_without_room", full)
    with pytest.raises(DeepmineError, match=r"There is no room\."):
        typed(study, tmp_path / "none")
    assert asked == [(tmp_path / "none", True)]
    assert openings(study) == before, "the test stays locked"
    assert [*tmp_path.iterdir()] == left_by(study) == []


def test_what_cannot_be_written_is_told_before_anything_is_trained(study, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(all_rows, "built", None)
    with pytest.raises(BadInput, match=r"Nothing can be written in .*/file\."):
        typed(study, tmp_path / "file" / "none")


def test_an_output_that_is_there_and_an_unknown_study_are_refused(study, tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(BadInput, match=r"/mine exists already\."):
        typed(study, tmp_path / "mine")
    with pytest.raises(BadInput, match=r"'smal' is no study in .*Did you mean 'small'"):
        CliRunner().invoke(refit, ["smal", "--storage", str(study.storage)], catch_exceptions=False)


@pytest.mark.usefixtures("unverified")
def test_where_it_may_not_go_on_it_ends_and_the_test_stays_locked(study):
    store, row = study_in(study.storage, "small")
    before = len(openings(study))
    told = r"The training on the rows of training and validation did not end well: the time is used up\."
    with study.storage.hold("small"), pytest.raises(DeepmineError, match=told):
        all_rows.refit_held(row, store, None, study.bundle.parent / "late", goes_on=lambda: False)
    assert not (study.bundle.parent / "late").exists()
    assert len(openings(study)) == before
    assert left_by(study) == []
