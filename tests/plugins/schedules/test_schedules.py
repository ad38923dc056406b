"""Our schedules keep their promises; `tests/training/test_rate_factor.py` compares them with other libraries'."""

import pytest

from deepmine_auto.host import the_host
from deepmine_auto.testing.schedule import SchedulePromises
from deepmine_plugins.schedules.constant import Constant
from deepmine_plugins.schedules.cosine import Cosine
from deepmine_plugins.schedules.inverse_sqrt import InverseSqrt
from deepmine_plugins.schedules.linear import LinearDecay
from deepmine_plugins.schedules.warmup_stable_decay import WarmupStableDecay


class TestCosine(SchedulePromises):
    schedule = Cosine


class TestLinearDecay(SchedulePromises):
    schedule = LinearDecay


class TestConstant(SchedulePromises):
    schedule = Constant


class TestWarmupStableDecay(SchedulePromises):
    schedule = WarmupStableDecay


class TestInverseSqrt(SchedulePromises):
    schedule = InverseSqrt


def test_each_of_ours_is_found_by_its_name():
    found = {name: each.thing for name, each in the_host().offered("schedule").items() if "deepmine" in each.path}
    assert found == {each.name: each for each in (Cosine, LinearDecay, Constant, WarmupStableDecay, InverseSqrt)}


@pytest.mark.parametrize(
    ("schedule", "middle", "end"),
    [(Cosine(), 0.5, 0.0), (LinearDecay(), 0.5, 0.0), (Constant(), 1.0, 1.0), (WarmupStableDecay(), 1.0, 0.0),
     (InverseSqrt(timescale=0.5), 0.5**0.5, 3**-0.5)],
)  # fmt: skip
def test_a_schedule_has_its_shape(schedule, middle, end):
    assert schedule.factor(0.5) == pytest.approx(middle)
    assert schedule.factor(1.0) == pytest.approx(end)


def test_the_cooldown_is_the_last_share_of_the_steps_and_steep_at_first():
    schedule = WarmupStableDecay(cooldown=0.4)
    assert [schedule.factor(done) for done in (0.1, 0.59)] == [1.0, 1.0]
    assert [schedule.factor(done) for done in (0.7, 0.8, 0.9)] == pytest.approx([0.5, 1 - 0.5**0.5, 1 - 0.75**0.5])


def test_the_timescale_of_the_first_transformer_is_the_default():
    """Its rate is that of warm-up's end times sqrt(4,000 / step), over 100,000 steps."""
    schedule = InverseSqrt(timescale=4_000 / 96_000)
    for step in (4_000, 10_000, 50_000, 100_000):
        done = (step - 4_000) / 96_000
        assert schedule.factor(done) == pytest.approx((4_000 / step) ** 0.5)
        assert InverseSqrt().factor(done) == pytest.approx((4_000 / step) ** 0.5, rel=0.03)
