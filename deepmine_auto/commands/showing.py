"""A plugin shown to people and to programs, and the files that pictures are written to."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from deepmine_auto.contracts import Brought
from deepmine_auto.errors import BadInput
from deepmine_auto.gallery.facts import attention_words, cost_rows, facts_of
from deepmine_auto.gallery.page import Card, page
from deepmine_auto.gallery.pattern import DIM, HEADS, Drawn, draw, shares
from deepmine_auto.gallery.svg import caption, document
from deepmine_auto.terminal.pattern import beside, shaded
from deepmine_auto.terminal.words import plain, table

WIDEST = 100
HOW_TO_READ = "A row is a query, a column a key. Fuller is more, -- is below zero."


def card_of(brought: Brought) -> Card:
    """What a plugin says of itself, and its pictures; only attention has some."""
    is_attention = brought.kind == "attention"
    return Card(facts_of(brought), draw(brought.thing) if is_attention else Drawn([], "only attention has one"))


def as_text(card: Card, width: int | None) -> str:
    """All that `plugins show` prints."""
    said, wide = card.said, min(width or WIDEST, WIDEST)
    parts = [_head(said), _wrapped(said["text"] or "It has no docstring.", wide), _fields(said)]
    if "attention" in said:
        words = attention_words(said["attention"])
        parts += [_aligned(words, wide), _costs(said["attention"]), _pictures(card, width)]
    return "\n\n".join(parts)


def to_json(card: Card) -> dict[str, Any]:
    """The same as plain values; weights to four digits."""
    if "attention" not in card.said:
        return dict(card.said)
    patterns = [
        {"mode": each.mode, "small": each.small, "weights": [[round(w, 4) for w in row] for row in each.rows]}
        for each in card.drawn.patterns
    ]
    return {
        **card.said,
        "attention": {**card.said["attention"], "patterns": patterns, "no_pattern": card.drawn.why_none},
    }


def _head(said: Mapping[str, Any]) -> str:
    link = f" {said['link']}" if said["link"] and said["link"] != said["source"] else ""
    pairs = [
        ("plugin", f"{said['name']}, {said['kind']}"),
        ("from", f"{said['distribution']} {said['version']}, {said['path']}"),
    ]
    return _aligned([*pairs, ("paper", f"{said['source']}{link}")] if said["source"] else pairs)


def _fields(said: Mapping[str, Any]) -> str:
    rows = [(each["name"], str(each["default"]), each["range"] or "not searched") for each in said["fields"]]
    return table(("field", "default", "range"), rows) if rows else "It has no fields."


def _costs(said: Mapping[str, Any]) -> str:
    if said["no_costs"]:
        return plain(said["no_costs"])
    rows = table(("tokens", "operations", "memory"), cost_rows(said))
    return f"One row, forward, with dim {DIM} and {HEADS} heads:\n{rows}"


def _pictures(card: Card, width: int | None) -> str:
    patterns, why_none = card.drawn
    if not patterns:
        return plain(f"No picture: {why_none}.")
    pictures = {str(each.mode): shaded(shares(each.rows)) for each in patterns}
    return f"{beside(pictures, width)}\n{plain(caption(card.said, patterns))}\n{HOW_TO_READ}"


def _wrapped(text: str, width: int) -> str:
    return "\n\n".join(textwrap.fill(plain(each), width) for each in text.split("\n\n"))


def _aligned(pairs: Iterable[tuple[str, str]], width: int = WIDEST) -> str:
    indent = " " * 12
    return "\n".join(
        textwrap.fill(plain(text), width, initial_indent=f"{name:<12}", subsequent_indent=indent)
        for name, text in pairs
    )


# -- files -------------------------------------------------------------------------------------------------------------


def svg_of(card: Card) -> str:
    """The picture as an SVG file. Raises BadInput for what has none."""
    if "attention" not in card.said:
        raise BadInput(f"'{card.said['name']}' is no attention variant and has no picture.", "Leave out --svg.")
    return document(card.said, card.drawn)


def page_of(variants: Iterable[Brought], version: str) -> str:
    """The page of these attention variants."""
    return page([card_of(each) for each in variants], version)


def free(name: str, option: str) -> Path:
    """A path that a file can be written to. Raises BadInput where its folder is missing or something stands there."""
    path = Path(name).expanduser()
    if not path.parent.is_dir():
        raise BadInput(f"There is no folder {path.parent}.", f"Make it first, or give another {option}.")
    if path.exists() or path.is_symlink():
        raise BadInput(f"{path} exists already.", f"Give another {option}, or move it away.")
    return path


def write(path: Path, text: str, option: str) -> None:
    """Write a new file. Raises BadInput where that is not allowed, and never writes over another."""
    try:
        with open(path, "x", encoding="utf-8") as opened:
            opened.write(text)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}.", f"Give another {option}.") from error
