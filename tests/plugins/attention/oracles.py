"""Each variant once more, as plain loops over float64 numbers, one query at a time: slow, and easy to believe.

Shapes: L length, S source length, K dim of one head. One row and one head; `visible(i, j)` says whether query i sees
key j.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Visible = Callable[[int, int], bool]
Score = Callable[[Tensor, Tensor], float]
Normalize = Callable[[list[float]], list[float]]


def dot(q_K: Tensor, k_K: Tensor) -> float:
    return sum(float(a) * float(b) for a, b in zip(q_K, k_K, strict=True)) / math.sqrt(len(q_K))


def softmax(scores: list[float]) -> list[float]:
    powers = [math.exp(each - max(scores)) for each in scores]
    return [each / sum(powers) for each in powers]


def share(scores: list[float]) -> list[float]:
    return [each / sum(scores) for each in scores]


def entmax(alpha: float) -> Normalize:
    """Bisection on the threshold."""

    def normalize(scores: list[float]) -> list[float]:
        xs, power = [(alpha - 1.0) * each for each in scores], 1.0 / (alpha - 1.0)
        low, high = max(xs) - 1.0, max(xs)
        for _ in range(100):
            middle = (low + high) / 2.0
            total = sum(max(x - middle, 0.0) ** power for x in xs)
            low, high = (middle, high) if total > 1.0 else (low, middle)
        return [max(x - low, 0.0) ** power for x in xs]

    return normalize


def elu_features(q_K: Tensor, k_K: Tensor) -> float:
    def phi(x: float) -> float:
        return x + 1.0 if x > 0.0 else math.exp(x)

    return sum(phi(float(a)) * phi(float(b)) for a, b in zip(q_K, k_K, strict=True))


def additive(w_KA: Tensor, u_KA: Tensor, v_A: Tensor) -> Score:
    def score(q_K: Tensor, k_K: Tensor) -> float:
        total = 0.0
        for a in range(len(v_A)):
            hidden = sum(float(q_K[i] * w_KA[i, a] + k_K[i] * u_KA[i, a]) for i in range(len(q_K)))
            total += float(v_A[a]) * math.tanh(hidden)
        return total

    return score


def turned(x_LK: Tensor, first: int, base: float, fraction: float) -> Tensor:
    """Rotate pairs (i, i + R) as complex numbers; the first row stands at position `first`."""
    out_LK = x_LK.clone()
    pairs = max(1, int(fraction * x_LK.shape[1]) // 2)
    for row in range(len(x_LK)):
        for i in range(pairs):
            angle = (first + row) * base ** (-i / pairs)
            whole = complex(x_LK[row, i], x_LK[row, i + pairs]) * complex(math.cos(angle), math.sin(angle))
            out_LK[row, i], out_LK[row, i + pairs] = whole.real, whole.imag
    return out_LK


def attend(
    q_LK: Tensor, k_SK: Tensor, v_SK: Tensor, visible: Visible, score: Score = dot, normalize: Normalize = softmax
) -> Tensor:
    """A query that sees nothing gets zero."""
    out_LK = torch.zeros(len(q_LK), v_SK.shape[1], dtype=torch.float64)
    for i, q_K in enumerate(q_LK):
        seen = [j for j in range(len(k_SK)) if visible(i, j)]
        weights = normalize([score(q_K, k_SK[j]) for j in seen]) if seen else []
        for weight, j in zip(weights, seen, strict=True):
            out_LK[i] += weight * v_SK[j]
    return out_LK
