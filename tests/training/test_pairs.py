"""Rows of a source and a target stay such, whatever a technique does to their symbols."""

import pytest

from deepmine_auto import Source
from deepmine_auto.data.kept import SEARCH, keep
from deepmine_auto.data.split import split
from deepmine_auto.host import the_host
from deepmine_auto.messages import Assignment, Ended
from deepmine_auto.training.loop import Training
from deepmine_plugins.tasks.reversal import Reversal

PARAMS = {
    "attention/kind": "multi_head",
    "model/depth": 1,
    "model/dim": 32,
    "model/heads": 2,
    "optimizer/kind": "adamw",
    "schedule/kind": "cosine",
    "training/epochs": 1,
    "training/batch": 16,
    "training/patience": 200,
    "technique/word_dropout/use": True,
    "technique/word_dropout/share": 0.4,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("study")
    rows = Reversal(count=120).read(Source())
    keep(made, rows, {SEARCH: split([""] * len(rows), 1)})
    return made


@pytest.mark.parametrize(("number", "kind"), [*enumerate(["encoder_decoder", "lstm", "decoder"])])
def test_what_divides_source_and_target_is_not_hidden(folder, number, kind):
    work = Assignment(
        kind="trial",
        number=number,
        attempt=1,
        folder=str(folder),
        task="reversal",
        objective="accuracy",
        split=SEARCH,
        seed=3,
        params={**PARAMS, "model/kind": kind},
    )
    *reports, end = Training(work, the_host()).messages()
    assert isinstance(end, Ended)
    assert end.cause == "budget"
    assert reports
