"""Patterns as SVG. Text is escaped, nothing runs, nothing is fetched, and light and dark can both be read."""

from __future__ import annotations

import html
import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from deepmine_auto.gallery.pattern import TOKENS, Drawn, Pattern, shares
from deepmine_auto.terminal.words import plain

LEVELS = 8
SIDE, EDGE, GAP, LINE = 240, 20, 28, 18
FAINT = 1e-6
NOT_IN_XML = re.compile("[\ud800-\udfff\ufffe\uffff]")

CELLS = ".more{fill:#1d4ed8}.less{fill:#c2410c}.frame{fill:none;stroke:#c9d1d9}"
DARK_CELLS = ".more{fill:#79a8ff}.less{fill:#ffa657}.frame{stroke:#3d444d}"
STYLE = (
    ":root{color-scheme:light dark}.ground{fill:#fff}text{fill:#1f2328;font:13px system-ui,sans-serif}"
    f".name{{font-weight:600;font-size:16px}}{CELLS}"
    f"@media(prefers-color-scheme:dark){{.ground{{fill:#14171c}}text{{fill:#e6e9ed}}{DARK_CELLS}}}"
)


def escaped(text: object) -> str:
    """Text as it may stand in SVG or HTML, between tags or in a quoted value.

    >>> escaped("<b a='1'>")
    '&lt;b a=&#x27;1&#x27;&gt;'
    """
    return html.escape(NOT_IN_XML.sub("\ufffd", plain(text)))


def cells(pattern: Pattern) -> str:
    """The weights in squares of one unit each: one path a shade, and neighbours of equal shade in one piece."""
    paths: dict[int, list[str]] = {}
    for at, row in enumerate(shares(pattern.rows)):
        for level, first, size in _runs(row):
            paths.setdefault(level, []).append(f"M{first} {at}h{size}v1h-{size}z")
    drawn = (
        f'<path class="{"more" if level > 0 else "less"}" fill-opacity="{abs(level) / LEVELS}" d="{"".join(parts)}"/>'
        for level, parts in sorted(paths.items())
    )
    return f'<g shape-rendering="crispEdges">{"".join(drawn)}</g>'


def _runs(row: Sequence[float]) -> Iterator[tuple[int, int, int]]:
    first = 0
    for level, run in groupby(map(_level, row)):
        size = len(list(run))
        if level:
            yield level, first, size
        first += size


def _level(share: float) -> int:
    return 0 if abs(share) < FAINT else int(math.copysign(max(1, round(abs(share) * LEVELS)), share))


def box(pattern: Pattern) -> str:
    """The units that a picture of the weights spans, as `viewBox` takes them."""
    return f"0 0 {len(pattern.rows[0])} {len(pattern.rows)}"


def caption(said: Mapping[str, Any], patterns: Sequence[Pattern]) -> str:
    """What the pictures show, and which fields were made small for them."""
    small = ", ".join(f"{name} = {value}" for each in patterns[:1] for name, value in each.small.items())
    ground = " on softmax attention, its parameters moved from their start," if _is_modifier(said) else ""
    return f"Weights of one head{ground} for {TOKENS} random tokens{f', with {small}' if small else ''}."


def _is_modifier(said: Mapping[str, Any]) -> bool:
    return bool(said["attention"]["role"] == "modifier")


# -- a file ------------------------------------------------------------------------------------------------------------


def document(said: Mapping[str, Any], drawn: Drawn) -> str:
    """An SVG file of one variant's patterns, or of the words why there are none."""
    count = max(2, len(drawn.patterns))
    width = 2 * EDGE + count * SIDE + (count - 1) * GAP
    words = caption(said, drawn.patterns) if drawn.patterns else f"No picture: {drawn.why_none}."
    notes = [*textwrap.wrap(words, 84), *([HOW_TO_READ] if drawn.patterns else [])]
    top = 82
    foot = top + (SIDE + 26 if drawn.patterns else 0)
    height = foot + len(notes) * LINE + 4
    parts = [
        _text(EDGE, 34, said["name"], "name"),
        _text(EDGE, 34 + LINE, said["source"]),
        *(_panel(EDGE + at * (SIDE + GAP), top, each) for at, each in enumerate(drawn.patterns)),
        *(_text(EDGE, foot + at * LINE, each) for at, each in enumerate(notes)),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img"><title>{escaped(said["name"])}</title><desc>{escaped(said["text"])}</desc>'
        f'<style>{STYLE}</style><rect class="ground" width="100%" height="100%"/>{"".join(parts)}</svg>\n'
    )


HOW_TO_READ = "A row is a query, a column a key. Stronger is more, orange is below zero."


def _text(x: int, y: int, text: str, name: str = "") -> str:
    return f'<text x="{x}" y="{y}"{f" class={name!r}" if name else ""}>{escaped(text)}</text>'


def _panel(x: int, y: int, pattern: Pattern) -> str:
    return (
        f'{_text(x, y - 8, pattern.mode)}<svg x="{x}" y="{y}" width="{SIDE}" height="{SIDE}" '
        f'viewBox="{box(pattern)}" preserveAspectRatio="none">{cells(pattern)}</svg>'
        f'<rect class="frame" x="{x - 0.5}" y="{y - 0.5}" width="{SIDE + 1}" height="{SIDE + 1}"/>'
    )
