"""How long the end of a study takes, which is kept of its time: the baseline, the locked test, the export, a check."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from statistics import median

from deepmine_auto.study.evidence import RESAMPLES

VERIFY_SECONDS = 12.0
"""Expected time of exporting and of reloading in a clean process, which imports torch once more."""

FEWEST = 3
"""Of fewer evaluations the scores' times say too little: they are taken thousands of times."""


def closing_seconds(baseline: float, took: Collection[Sequence[float]], parts: Mapping[str, int]) -> float:
    """The seconds to keep, where fitting the baseline takes `baseline`, and evaluations took so long for the outputs of
    the validation rows and for the scores of these. The test's outputs are scored for every resample, beside the
    baseline's; `parts` are the numbers of rows."""
    outputs, scores = (median(each) for each in zip(*took, strict=True)) if took else (0.0, 0.0)
    scored = 2 * RESAMPLES * scores if len(took) >= FEWEST else 0.0
    tested = (outputs + scored) * parts["test"] / parts["validation"]
    return VERIFY_SECONDS + 2 * baseline + tested
