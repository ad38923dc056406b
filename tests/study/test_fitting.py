"""A batch that did not fit is halved at once for all that has its shape."""

import pytest
from fakes import Desk

from deepmine_auto.messages import Ended
from deepmine_auto.study.fitting import shape_of


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def test_what_has_the_same_shape_begins_with_the_halved_batch(desk):
    ledger = desk.ledger(desk.begin())
    first = ledger.ask()
    assert first.halvings == 0
    halved = ledger.adopt(first.key, "memory")
    assert halved.halvings == 1
    ledger.end(halved.key, Ended("budget", 0.5, 1, "x"))
    later = [ledger.ask() for _ in range(24)]
    alike = [shape_of(each.params) == shape_of(first.params) for each in later]
    assert [each.halvings for each in later] == [int(each) for each in alike]
    assert 0 < sum(alike) < len(later)
    assert ledger.add_rerun(first.number, 0).halvings == 1
    assert desk.ledger(desk.store.study("study")).add_rerun(first.number, 1).halvings == 1, "a restart knows it too"


def test_what_still_does_not_fit_is_halved_from_there(desk):
    ledger = desk.ledger(desk.begin())
    first = ledger.ask()
    ledger.adopt(first.key, "memory")
    rerun = ledger.add_rerun(first.number, 0)
    assert rerun.halvings == 1
    assert ledger.adopt(rerun.key, "memory").halvings == 2
    assert ledger.adopt(rerun.key, "lost").halvings == 2
    assert ledger.add_rerun(first.number, 1).halvings == 2


def test_how_long_is_trained_is_no_part_of_a_shape():
    params = {"training/batch": 32, "model/kind": "encoder"}
    assert shape_of({**params, "tuning/lora/top": 0.5}) != params
    lasting = {"training/epochs": 9, "training/patience": 2, "schedule/kind": "cosine", "schedule/warmup": 0.1}
    assert shape_of({**params, **lasting}) == params


def test_rates_and_dropout_are_no_part_of_a_shape():
    params = {"training/batch": 32, "technique/ema/use": True, "model/kind": "encoder"}
    assert shape_of({**params, "optimizer/adamw/lr": 0.1}) == shape_of({**params, "optimizer/adamw/lr": 0.2}) == params
    assert shape_of({**params, "training/batch": 16}) != params


@pytest.mark.parametrize("more", [{"training/batching": "tokens"}, {"technique/gradient_accumulation/parts": 4}])
def test_how_batches_are_made_and_worked_off_is_part_of_a_shape(more):
    params = {"training/batch": 32, "model/kind": "encoder"}
    assert shape_of({**params, **more}) != shape_of(params)
