"""How things are put to a person: models, curves and tables. Pure functions of plain values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from deepmine_auto.contracts import Direction
from deepmine_auto.objectives import in_points

CONTROL = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|.?)"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
)
"""Escape sequences and control characters: in a name or a text they could rewrite what the terminal shows."""

BARS = "▁▂▃▄▅▆▇█"


def plain(text: object) -> str:
    """One line without control characters.

    >>> plain("a\\x1b[31mred\\nline")
    'ared line'
    """
    return CONTROL.sub("", re.sub(r"[\t\r\n]+", " ", str(text)))


# -- models ------------------------------------------------------------------------------------------------------------


def model_words(params: Mapping[str, Any]) -> str:
    """A trial's model in words, what tells it from others first; parts that are not known are left out.

    >>> model_words({"attention/kind": "sliding_window", "attention/sliding_window/window": 64, "model/depth": 2})
    'sliding_window w64, depth 2'
    """
    kind = params.get("attention/kind")
    words = [" ".join([str(kind), *_fields(params, f"attention/{kind}/")])] if kind else []
    if params.get("placement/kind") == "hybrid":
        words.append(f"{params['placement/hybrid/kind']} in 1 of {params['placement/hybrid/ratio'] + 1} layers")
    for name in _used(params, "attention"):
        words.append(" ".join([name, *_fields(params, f"attention/{name}/")]))
    words += [f"{part} {params[f'model/{part}']}" for part in ("depth", "dim") if f"model/{part}" in params]
    words += [f"{params['model/heads']} heads"] if "model/heads" in params else []
    words += _pretrained(params)
    optimizer = params.get("optimizer/kind")
    rate = params.get(f"optimizer/{optimizer}/lr")
    words += [str(optimizer) + ("" if rate is None else f" lr {rate:.1e}")] if optimizer else []
    return plain(", ".join(words))


def _pretrained(params: Mapping[str, Any]) -> list[str]:
    """The model that others trained, by the end of its name, and what of it learns."""
    origin, tuning = params.get("model/pretrained/origin"), params.get("tuning/kind")
    words = ["/".join(str(origin).partition("@")[0].split("/")[-2:])] if origin else []
    return words + ([" ".join([str(tuning), *_fields(params, f"tuning/{tuning}/")])] if tuning else [])


def _used(params: Mapping[str, Any], prefix: str) -> list[str]:
    names = (name.split("/") for name, value in params.items() if value is True)
    return sorted(each[1] for each in names if len(each) == 3 and each[0] == prefix and each[2] == "use")


def _fields(params: Mapping[str, Any], prefix: str) -> list[str]:
    found = {name.removeprefix(prefix): value for name, value in params.items() if name.startswith(prefix)}
    return [text for name, value in found.items() if name != "use" and (text := _field(name, value))]


def _field(name: str, value: Any) -> str:
    """`w64` for window = 64, `kh2` for kv_heads = 2; what is on has its name, what is off has none."""
    if isinstance(value, bool):
        return name if value else ""
    initials = "".join(word[0] for word in name.split("_") if word)
    return (
        value
        if isinstance(value, str)
        else f"{initials}{value:.3g}"
        if isinstance(value, float)
        else f"{initials}{value}"
    )


# -- curves ------------------------------------------------------------------------------------------------------------


class Scale(NamedTuple):
    """The values at the foot and at the top of a sparkline."""

    low: float
    high: float


def scale_of(values: Iterable[float], direction: Direction) -> Scale:
    """One scale for the curves of a table, which leaves out the worst tenth: early values would flatten all others."""
    ordered = sorted(values)
    if not ordered:
        return Scale(0.0, 1.0)
    tenth = len(ordered) // 10
    return Scale(ordered[tenth], ordered[-1]) if direction == "maximize" else Scale(ordered[0], ordered[-1 - tenth])


def sparkline(values: Sequence[float], scale: Scale, width: int) -> str:
    """A curve in at most `width` characters, its end always shown.

    >>> sparkline([0.1, 0.5, 0.9], Scale(0.1, 0.9), 8)
    '▁▅█'
    """
    if len(values) > width:
        values = [values[(at + 1) * len(values) // width - 1] for at in range(width)]
    spread = scale.high - scale.low
    shares = [(each - scale.low) / spread if spread > 0 else 0.5 for each in values]
    return "".join(BARS[min(len(BARS) - 1, max(0, int(share * len(BARS))))] for share in shares)


# -- numbers -----------------------------------------------------------------------------------------------------------


def lead_words(value: float, baseline: float, name: str, direction: Direction) -> str:
    """How far a value is ahead of the baseline's, in percentage points; of what is no share, such as nats, how far
    below or above it is.

    >>> lead_words(0.871, 0.850, "tf-idf", "maximize")
    '+2.1 pp over tf-idf'
    >>> lead_words(0.41, 1.04, "tf-idf", "minimize")
    '0.630 below tf-idf'
    >>> lead_words(-1.2, -3.3, "tf-idf", "maximize")
    '2.100 above tf-idf'
    """
    if not in_points(direction, value, baseline):
        return f"{abs(value - baseline):.3f} {'below' if value <= baseline else 'above'} {name}"
    lead = 100 * (value - baseline)
    return f"+{lead:.1f} pp over {name}" if lead >= 0 else f"{-lead:.1f} pp under {name}"


# -- tables ------------------------------------------------------------------------------------------------------------


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Rows below their heads, columns two blanks apart; numbers to the right, and a last column cut to fit `width`."""
    cells = [heads, *([plain(each) for each in row] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(heads))]
    right = [bool(rows) and all(_numeric(row[at]) for row in rows) for at in range(len(heads))]
    lines = []
    for row in cells:
        padded = [
            text.rjust(size) if side else text.ljust(size) for text, size, side in zip(row, widths, right, strict=True)
        ]
        lines.append(shortened("  ".join(padded).rstrip(), width))
    return "\n".join(lines)


def _numeric(text: str) -> bool:
    return text in ("", "-") or bool(re.match(r"[-+]?\d", text))


def shortened(text: str, width: int | None) -> str:
    """The text, or its beginning and an ellipsis where it is longer than `width`."""
    return text if width is None or len(text) <= width else text[: max(0, width - 1)] + "…"
