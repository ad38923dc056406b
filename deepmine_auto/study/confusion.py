"""A confusion matrix as a picture, for a dashboard that shows PNG files.

Shapes: N rows, C classes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

MOST_CLASSES = 30
"""With more, the rarest are drawn as one."""

CELL, MARGIN, LETTERS, LONGEST = 56, 12, 14, 16
DEEP = np.array([21, 76, 121])
"""The colour of a cell that holds its whole row."""


def confusion_png(labels: Sequence[str], targets_N: np.ndarray, predicted_N: np.ndarray) -> bytes:
    """Draw how often each true class (down) was predicted as each class (across), shaded by shares of the true class.

    Raises ImportError where Pillow is missing.
    """
    from PIL import Image, ImageDraw, ImageFont

    names, counts_CC = _counted(labels, targets_N, predicted_N)
    font = ImageFont.load_default(LETTERS)
    wide = max(CELL, round(max(map(font.getlength, [*names, "predicted"]))) + 2 * MARGIN)
    top = 2 * LETTERS + 3 * MARGIN
    image = Image.new("RGB", (wide * (len(names) + 1) + MARGIN, top + CELL * len(names) + MARGIN), "white")
    draw = ImageDraw.Draw(image)
    draw.font = font
    _draw_names(draw, names, wide, top)
    _draw_cells(draw, counts_CC, wide, top)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _draw_names(draw: ImageDraw, names: Sequence[str], wide: int, top: int) -> None:
    draw.text((wide, MARGIN), "predicted", "gray")
    draw.text((wide - MARGIN, top - MARGIN), "true", "gray", anchor="rs")
    for at, name in enumerate(names):
        draw.text((wide * (at + 1.5), top - MARGIN), name, "black", anchor="ms")
        draw.text((wide - MARGIN, top + CELL * (at + 0.5)), name, "black", anchor="rm")


def _draw_cells(draw: ImageDraw, counts_CC: np.ndarray, wide: int, top: int) -> None:
    shares_CC = counts_CC / np.maximum(1, counts_CC.sum(1, keepdims=True))
    for (row, column), share in np.ndenumerate(shares_CC):
        x, y = wide * (column + 1), top + CELL * row
        red, green, blue = (255 + share * (DEEP - 255)).astype(int).tolist()
        draw.rectangle((x, y, x + wide - 2, y + CELL - 2), (red, green, blue))
        ink = "white" if share > 0.5 else "black"
        draw.text((x + wide / 2, y + CELL / 2), f"{counts_CC[row, column]:,}", ink, anchor="mm")


def _counted(labels: Sequence[str], targets_N: np.ndarray, predicted_N: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The names of at most so many classes, and the counts (C, C) of true classes (rows) and predicted ones."""
    names = [_drawable(label, at) for at, label in enumerate(labels)]
    place_C = np.arange(len(labels))
    if len(labels) > MOST_CLASSES:
        frequent = np.argsort(-np.bincount(targets_N, minlength=len(labels)), kind="stable")
        kept = np.sort(frequent[: MOST_CLASSES - 1])
        place_C = np.full(len(labels), len(kept))
        place_C[kept] = np.arange(len(kept))
        names = [*(names[at] for at in kept), "the rest"]
    pairs_N = place_C[targets_N] * len(names) + place_C[predicted_N]
    return names, np.bincount(pairs_N, minlength=len(names) ** 2).reshape(len(names), len(names))


def _drawable(label: str, at: int) -> str:
    """A label's beginning; its place among the labels where the font may not have its letters."""
    return label[:LONGEST] if label.isascii() and label.isprintable() and label.strip() else f"class {at}"
