"""The mean of what several models say.

Shapes: N rows, L length, C classes, M members.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def averaged(outputs: Sequence[np.ndarray], shares: Sequence[float]) -> np.ndarray:
    """The logarithm of the members' mean probabilities, from outputs (N, C) or (N, L, C) of each, in shares that add
    up to one. A task takes it like the outputs of one model.

    A token that a member's row does not reach, where its outputs are zero, is left to the others; past the ends of all
    the result is zero as well.
    """
    length = max(each.shape[1] for each in outputs)
    log_p = np.stack([_log_softmax(_to_length(each, length)) for each in outputs])
    said = np.stack([_said(_to_length(each, length)) for each in outputs])
    log_shares = np.where(said, np.log(shares).reshape(-1, *(1,) * outputs[0].ndim), -np.inf)
    log_whole = np.logaddexp.reduce(log_shares)
    anybody = np.isfinite(log_whole)
    summed = np.logaddexp.reduce(log_shares + log_p)
    mean: np.ndarray = np.subtract(
        summed, log_whole, out=np.zeros_like(summed), where=np.broadcast_to(anybody, summed.shape)
    )
    return mean


def _said(outputs: np.ndarray) -> np.ndarray:
    """Where a member answers, (N, 1) or (N, L, 1): every row, and every token that its row has."""
    rows = np.ones((len(outputs), 1), bool)
    return np.any(outputs, -1, keepdims=True) if outputs.ndim == 3 else rows


def _to_length(outputs: np.ndarray, length: int) -> np.ndarray:
    return outputs if outputs.ndim == 2 else np.pad(outputs, ((0, 0), (0, length - outputs.shape[1]), (0, 0)))


def _log_softmax(outputs: np.ndarray) -> np.ndarray:
    shifted = outputs.astype(np.float64) - outputs.max(-1, keepdims=True)
    log_p: np.ndarray = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return log_p
