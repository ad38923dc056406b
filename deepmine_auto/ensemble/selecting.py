"""The members of an ensemble, chosen on the validation rows of the search. The locked test is not touched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from deepmine_auto.ensemble.averaging import averaged
from deepmine_auto.ensemble.candidates import Pool
from deepmine_auto.ensemble.greedy import greedy
from deepmine_auto.errors import BadInput, DeepmineError
from deepmine_auto.storage.store import Row, StudyRow
from deepmine_auto.study.pruning import oriented

PICKS = 5


class NoBetter(DeepmineError):
    """What costs more is not better on the validation rows."""


@dataclass(frozen=True)
class Selection:
    """The share of each trial in an ensemble, its validation score, and that of the best trial alone; how many trials
    there were to choose from."""

    shares: dict[int, float]
    value: float
    best: int
    alone: float
    candidates: int

    def words(self) -> str:
        """The trials with their shares, such as `3 (60%), 8 (40%)`."""
        return ", ".join(f"{trial} ({share:.0%})" for trial, share in sorted(self.shares.items()))

    def to_json(self) -> Row:
        """What it was chosen by, as plain values."""
        return {"value": self.value, "best": self.best, "alone": self.alone, "candidates": self.candidates}


def refuse_few(members: int) -> None:
    """Raise BadInput for an ensemble of fewer than two picks."""
    if members < 2:
        raise BadInput(f"--members is {members}, and an ensemble has two or more.", "Give a larger number.")


def select(pool: Pool, row: StudyRow, members: int) -> Selection:
    """Pick so many members by the study's first objective. Raises NoBetter where one trial alone is as good."""
    objective = row.spec["objective"]

    def worth(picks: Sequence[int]) -> float:
        shares = _shares(picks)
        outputs = averaged([pool.candidates[each].outputs for each in shares], [*shares.values()])
        return oriented(pool.task.scores(outputs, pool.targets)[objective], row.direction)

    trials = [each.trial for each in pool.candidates]
    alone, at = max((worth([each]), -each) for each in range(len(trials)))
    picked = greedy(len(trials), worth, members)
    if picked is None or picked.worth <= alone:
        what = f"On the validation rows no ensemble is better than trial {trials[-at]} alone."
        raise NoBetter(what, f"Export that one: deepmine-auto export {row.typed} --trial {trials[-at]}")
    shares = {trials[each]: share for each, share in sorted(_shares(picked.picks).items())}
    return Selection(
        shares, oriented(picked.worth, row.direction), trials[-at], oriented(alone, row.direction), len(trials)
    )


def _shares(picks: Sequence[int]) -> dict[int, float]:
    return {each: times / len(picks) for each, times in Counter(picks).items()}
