"""The Pareto front against its definition."""

from hypothesis import given
from hypothesis import strategies as st

from deepmine_auto.study.pareto import front

COARSE = st.integers(0, 4).map(float)  # few values, so that ties and equal points are common


def studies():
    """Points with their directions."""
    directions = st.lists(st.sampled_from(["minimize", "maximize"]), min_size=1, max_size=4)
    return directions.flatmap(
        lambda ways: st.tuples(st.lists(st.tuples(*[COARSE] * len(ways)), max_size=12), st.just(ways))
    )


def better(one, other, directions):
    """Whether `one` dominates `other`, word for word."""
    pairs = [(a, b) if way == "maximize" else (b, a) for a, b, way in zip(one, other, directions, strict=True)]
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


@given(studies())
def test_the_front_is_what_no_point_dominates(study):
    points, directions = study
    by_definition = [
        at for at, point in enumerate(points) if not any(better(other, point, directions) for other in points)
    ]
    assert front(points, directions) == by_definition


@given(studies())
def test_every_point_beside_the_front_is_beaten_by_one_on_it(study):
    points, directions = study
    found = front(points, directions)
    for at, point in enumerate(points):
        assert at in found or any(better(points[each], point, directions) for each in found)


def test_with_one_objective_the_front_is_the_best_and_its_equals():
    assert front([(1.0,), (3.0,), (2.0,), (3.0,)], ["maximize"]) == [1, 3]
    assert front([(1.0,), (3.0,), (1.0,)], ["minimize"]) == [0, 2]
    assert front([], ["minimize"]) == []
