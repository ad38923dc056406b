"""What every schedule promises. Inherit it, name your class, and pytest runs the promises:

class TestMySchedule(SchedulePromises):
    schedule = MySchedule
"""

from __future__ import annotations

from typing import ClassVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepmine_auto.contracts import Schedule
from deepmine_auto.testing.drawing import drawn

SHARES = [at / 64 for at in range(65)]
"""From the first step after warm-up to the end."""

anywhere = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.differing_executors])


class SchedulePromises:
    """Promises of a schedule plugin, wherever its searched fields are drawn in their ranges."""

    schedule: ClassVar[type[Schedule]]

    @given(data=st.data())
    @anywhere
    def test_it_starts_at_the_height_to_which_warm_up_rises(self, data: st.DataObject) -> None:
        """The factor is 1 where nothing is done yet, or the learning rate would jump."""
        plugin = data.draw(drawn(self.schedule))
        assert plugin.factor(0.0) == 1.0, plugin

    @given(data=st.data(), drawn_share=st.floats(0.0, 1.0))
    @anywhere
    def test_it_is_finite_and_stays_between_0_and_1(self, data: st.DataObject, drawn_share: float) -> None:
        """Below 0 the loss would climb; above 1 the learning rate would leave the range that is searched."""
        plugin = data.draw(drawn(self.schedule))
        found = {done: plugin.factor(done) for done in (*SHARES, drawn_share)}
        outside = {done: each for done, each in found.items() if not 0.0 <= each <= 1.0}  # which no nan passes
        assert not outside, f"{plugin} by share: {outside}"

    def test_it_says_a_plain_number(self) -> None:
        """A tensor would be carried into the state of the optimizer, and so into checkpoints."""
        assert {type(self.schedule().factor(done)) for done in SHARES} <= {float, int}

    def test_asked_again_and_in_another_order_it_says_the_same(self) -> None:
        """It counts nothing: a training that was interrupted asks from the middle on."""
        plugin = self.schedule()
        forth = [plugin.factor(done) for done in SHARES]
        back = [plugin.factor(done) for done in reversed(SHARES)]
        assert forth == back[::-1]

    def test_two_of_the_same_fields_say_the_same_to_the_end(self) -> None:
        """Each worker of a team has one of its own, and all must move the weights alike."""
        first, second = self.schedule(), self.schedule()
        assert [first.factor(done) for done in SHARES] == [second.factor(done) for done in SHARES]
