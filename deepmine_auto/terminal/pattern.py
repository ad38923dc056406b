"""Who looks at whom, in block characters. Pure functions of plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

SHADES = " ░▒▓█"
BELOW_ZERO = "-"
FAINT = 1e-6
"""A share below this is drawn as nothing."""
GAP = "    "


def shaded(shares: Sequence[Sequence[float]]) -> list[str]:
    """One line a query and two characters a key, which makes a token square; each value from -1 to 1.

    >>> shaded([[1.0, 0.0], [0.5, -0.5]])
    ['██  ', '▒▒--']
    """
    return ["".join(2 * _shade(each) for each in row) for row in shares]


def _shade(share: float) -> str:
    if abs(share) < FAINT:
        return SHADES[0]
    top = len(SHADES) - 1
    return BELOW_ZERO if share < 0 else SHADES[min(top, math.ceil(share * top))]


def beside(pictures: Mapping[str, Sequence[str]], width: int | None) -> str:
    """Pictures in frames below their titles: side by side where `width` has room, else below each other."""
    framed = [_framed(title, lines) for title, lines in pictures.items()]
    if width is not None and sum(len(each[1]) for each in framed) + len(GAP) * (len(framed) - 1) <= width:
        tallest = max(map(len, framed), default=0)
        padded = [each + [" " * len(each[1])] * (tallest - len(each)) for each in framed]
        return "\n".join(GAP.join(lines).rstrip() for lines in zip(*padded, strict=True))
    return "\n\n".join("\n".join(line.rstrip() for line in each) for each in framed)


def _framed(title: str, lines: Sequence[str]) -> list[str]:
    wide = max(map(len, lines), default=0)
    inside = [f"│{line:<{wide}}│" for line in lines]
    return [f"{title:<{wide + 2}}"[: wide + 2], f"┌{'─' * wide}┐", *inside, f"└{'─' * wide}┘"]
