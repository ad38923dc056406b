"""What a pruner is given of a row."""

import pytest

from deepmine_auto.host import the_host
from deepmine_auto.messages import OUT_OF_PATIENCE
from deepmine_auto.objectives import Limit, Objective
from deepmine_auto.study.pruning import curve, judge, seen

ROW = {"number": 4, "share": 500, "seq": 9, "value": 0.25, "metrics": {}}


def test_larger_is_better_of_every_objective_and_what_is_no_number_is_worst():
    objectives = [Objective("log_loss", "minimize"), Objective("accuracy", "maximize"), Objective("cost", "minimize")]
    found = seen({**ROW, "metrics": {"accuracy": None, "cost": 3.0}}, objectives)
    assert (found.value, found.values) == (-0.25, (-0.25, -float("inf"), -3.0))


@pytest.mark.parametrize(
    ("more", "last"),
    [({}, False), ({"share": 1000}, True), ({"metrics": {OUT_OF_PATIENCE: 1.0}}, True)],
)
def test_the_last_report_is_that_of_all_steps_or_of_no_more_patience(more, last):
    assert seen({**ROW, **more}, [Objective("accuracy", "maximize")]).last == last


SMALL = Limit("peak_mb", 1, 100.0)


def test_models_over_a_limit_on_costs_set_no_cutoff_for_those_that_keep_it():
    """Three that lead, and may not win, would otherwise stop the fourth at its first rung."""
    came_to = {"kind": "trial", "step": 9, "share": 111}
    rows = [
        {**came_to, "number": at, "seq": at, "value": value, "metrics": {"peak_mb": cost}}
        for at, (value, cost) in enumerate([(0.9, 200.0), (0.8, 300.0), (0.7, 400.0), (0.6, 50.0)])
    ]
    asha = the_host().get("pruner", "asha")()
    assert judge(asha, curve(rows, [Objective("f", "maximize")], [SMALL]), 3).keep
    assert not judge(asha, curve(rows, [Objective("f", "maximize")]), 3).keep


def test_a_limit_on_a_score_may_still_be_met_while_a_model_learns():
    row = {**ROW, "metrics": {"f": 0.1, "peak_mb": 50.0}}
    assert seen(row, [Objective("f", "maximize")], [Limit("f", -1, 0.5), SMALL]).able
