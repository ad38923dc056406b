"""What a pruner is given of a row."""

import pytest

from deepmine_auto.messages import OUT_OF_PATIENCE
from deepmine_auto.objectives import Objective
from deepmine_auto.study.pruning import seen

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
