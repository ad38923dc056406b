"""Which trials are better."""

from hypothesis import given
from hypothesis import strategies as st
from optuna.study import StudyDirection

from deepmine_auto.study.pareto import front
from deepmine_auto.study.ranking import best_first

UP, DOWN = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
points = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=20)


def test_for_one_objective_the_best_come_first_and_of_equal_ones_the_earlier():
    values = [[2.0], [5.0], [2.0], [1.0]]
    assert best_first(values, [UP], 9) == [1, 0, 2, 3]
    assert best_first(values, [DOWN], 2) == [3, 0]
    assert best_first([[0.5], [0.7]] * 50, [UP], 100) == [*range(1, 100, 2), *range(0, 100, 2)]
    assert best_first([], [UP], 3) == best_first([], [UP, DOWN], 0) == best_first([], [UP, DOWN], 3) == []


@given(points)
def test_for_several_objectives_what_nothing_beats_comes_first(found):
    size = len(front(found, ["maximize", "minimize"]))
    ordered = best_first(found, [UP, DOWN], len(found))
    assert sorted(ordered[:size]) == front(found, ["maximize", "minimize"])
    assert sorted(ordered) == list(range(len(found)))
    assert set(best_first(found, [UP, DOWN], size)) == set(ordered[:size])
