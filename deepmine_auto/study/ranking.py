"""Which trials are better, for one objective and for several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from optuna.study import StudyDirection
from optuna.study._multi_objective import _fast_non_domination_rank


def best_first(values: Sequence[Sequence[float]], directions: Sequence[StudyDirection], most: int) -> list[int]:
    """The indices of the `most` best of N values of O objectives each, best first, the earlier of equal ones first.

    With several objectives, what no other is better than in all of them comes first, then what only those are better
    than, and so on.
    """
    signs = [-1.0 if each == StudyDirection.MAXIMIZE else 1.0 for each in directions]
    losses_NO = np.asarray(values, float).reshape(-1, len(signs)) * signs
    several = len(signs) > 1 and most > 0
    ranks_N = _fast_non_domination_rank(losses_NO, n_below=most) if several else losses_NO[:, 0]
    return [int(each) for each in np.argsort(ranks_N, kind="stable")[:most]]
