"""What a technique declares of rows whose tokens have answers of their own is so."""

import pytest
import torch
from alike import CERTAIN
from tiny_texts import PARAMS

from deepmine_auto.data.kept import SEARCH, keep
from deepmine_auto.data.rows import Extra, Rows
from deepmine_auto.data.split import split
from deepmine_auto.host import the_host
from deepmine_auto.messages import Assignment
from deepmine_auto.training.loop import Training
from deepmine_auto.training.outputs import outputs_of
from deepmine_auto.training.step import take_step

TECHNIQUES = sorted(the_host().offered("technique"))
FOR_ANY_ROWS = [each for each in TECHNIQUES if not the_host().get("technique", each).one_answer]
ASSIGNED = {"kind": "trial", "number": 0, "attempt": 1, "objective": "accuracy", "split": SEARCH, "seed": 11}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Lines of one to six letters, and the same letters as answers."""
    folder = tmp_path_factory.mktemp("study")
    lines = [" ".join("abcdefg"[at % 7] for at in range(number, number + 1 + number % 6)) for number in range(48)]
    keep(folder, Rows(lines, lines), {SEARCH: split([""] * len(lines), 1)}, Extra((), ()))
    return folder


def training_of(folder, *names):
    params = {**PARAMS, **{name: each for name, each in CERTAIN.items() if name.startswith("model/")}}
    params |= {f"technique/{name}/use": True for name in names}
    return Training(Assignment(folder=str(folder), task="characters", params=params, **ASSIGNED), the_host())


@pytest.mark.parametrize("name", FOR_ANY_ROWS)
def test_what_is_for_any_rows_trains_on_them(folder, name):
    training = training_of(folder, name)
    training.model.train()
    for _ in range(3):
        assert torch.isfinite(take_step(training, *training.draw()))
    outputs = outputs_of(training.model, training.evaluated(), training.validation, training.device)
    assert training.task.scores(outputs, training.validation.targets).keys() >= {"accuracy", "log_loss"}


def test_there_are_techniques_of_both_sorts():
    assert {"word_dropout", "gradient_accumulation"} <= {*FOR_ANY_ROWS} < {*TECHNIQUES}
