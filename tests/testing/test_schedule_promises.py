"""Each promise has teeth: a schedule that breaks it, and nothing but a promise that notices."""

import inspect
import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import pytest
import torch

from deepmine_auto import Float, Schedule
from deepmine_auto.testing.checks import kit_of
from deepmine_auto.testing.schedule import SchedulePromises


@dataclass(frozen=True, kw_only=True)
class Falling(Schedule):
    """Keeps every promise; the mutants below change one thing each."""

    name: ClassVar[str] = "falling"
    source: ClassVar[str] = "a test"

    power: Annotated[float, Float(0.5, 2.0)] = 1.0

    def factor(self, done):
        return (1.0 - done) ** self.power


class StartsLow(Falling):
    def factor(self, done):
        return 0.5 * (1.0 - done)


class GoesBelow(Falling):
    def factor(self, done):
        return 1.0 - 1.1 * done


class GoesAbove(Falling):
    def factor(self, done):
        return 1.0 + math.sin(math.pi * done)


class EndsAsNoNumber(Falling):
    def factor(self, done):
        return super().factor(done) if done < 1.0 else math.nan


@dataclass(frozen=True, kw_only=True)
class LeavesAtTheEdge(Falling):
    power: Annotated[float, Float(-0.5, 2.0)] = 1.0

    def factor(self, done):
        return min(2.0, (1.001 - done) ** self.power / 1.001**self.power)


class SaysATensor(Falling):
    def factor(self, done):
        return torch.tensor(super().factor(done))


class CountsItsCalls(Falling):
    calls: ClassVar[list[float]] = []

    def factor(self, done):
        self.calls.append(done)
        return super().factor(done) if done in (0.0, 1.0) else super().factor(done) * 0.999 ** len(self.calls)


class DiffersByInstance(Falling):
    made: ClassVar[list[int]] = []

    def factor(self, done):
        if id(self) not in self.made:
            self.made.append(id(self))
        return super().factor(done) ** (1 + self.made.index(id(self)))


def broken_promises(schedule):
    kit = type("TestKit", (SchedulePromises,), {"schedule": schedule})()
    broken = set()
    for name, promise in inspect.getmembers(kit, inspect.ismethod):
        try:
            promise()
        except AssertionError:
            broken.add(name.removeprefix("test_"))
    return broken


def test_a_schedule_that_does_its_work_breaks_no_promise():
    assert broken_promises(Falling) == set()


def test_the_promises_of_schedules_are_found_by_their_class():
    assert issubclass(kit_of(Falling), SchedulePromises)


@pytest.mark.parametrize(
    ("mutant", "promise"),
    [
        (StartsLow, "it_starts_at_the_height_to_which_warm_up_rises"),
        (GoesBelow, "it_is_finite_and_stays_between_0_and_1"),
        (GoesAbove, "it_is_finite_and_stays_between_0_and_1"),
        (EndsAsNoNumber, "it_is_finite_and_stays_between_0_and_1"),
        (LeavesAtTheEdge, "it_is_finite_and_stays_between_0_and_1"),
        (SaysATensor, "it_says_a_plain_number"),
        (CountsItsCalls, "asked_again_and_in_another_order_it_says_the_same"),
        (DiffersByInstance, "two_of_the_same_fields_say_the_same_to_the_end"),
    ],
)
def test_a_mutant_breaks_the_promise_made_against_it(mutant, promise):
    broken = broken_promises(mutant)
    assert promise in broken
    assert broken == {promise} or mutant is CountsItsCalls, "two that count differ too"
