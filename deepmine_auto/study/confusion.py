"""A confusion matrix as a picture, for a dashboard that shows PNG files.

Shapes: C classes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

MOST_CLASSES = 30
"""With more, the rarest are one class of their own."""

CELL, MARGIN, LETTERS = 56, 12, 14
DEEP = np.array([21, 76, 121])
"""The colour of a cell that holds its whole row."""


def confusion(targets_N: np.ndarray, predicted_N: np.ndarray, classes: int) -> np.ndarray:
    """Count how often each true class (rows) was predicted as each class (columns): int64 (C, C)."""
    pairs = targets_N.astype(np.int64) * classes + predicted_N
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def confusion_png(labels: Sequence[str], counts_CC: np.ndarray) -> bytes:
    """Draw counts (C, C) as PNG: true classes down, predicted ones across, each row shaded by its own shares.

    Raises ImportError where Pillow is missing.
    """
    from PIL import Image, ImageDraw, ImageFont

    labels, counts_CC = _fewer(labels, counts_CC)
    font = ImageFont.load_default(LETTERS)
    names = [_drawable(label, at) for at, label in enumerate(labels)]
    side = round(max(font.getlength(each) for each in [*names, "true"])) + 2 * MARGIN
    top = 2 * LETTERS + 3 * MARGIN
    wide = max(CELL, side)
    image = Image.new("RGB", (side + wide * len(names) + MARGIN, top + CELL * len(names) + MARGIN), "white")
    draw = ImageDraw.Draw(image)
    draw.text((side, MARGIN), "predicted", "gray", font)
    draw.text((MARGIN, top - MARGIN - LETTERS), "true", "gray", font)
    shares_CC = counts_CC / np.maximum(1, counts_CC.sum(1, keepdims=True))
    for row, name in enumerate(names):
        y = top + CELL * row
        draw.text((side + wide * row + wide / 2, top - MARGIN / 2), name, "black", font, "mb")
        draw.text((side - MARGIN, y + CELL / 2), name, "black", font, "rm")
        for column, share in enumerate(shares_CC[row]):
            x = side + wide * column
            draw.rectangle((x, y, x + wide - 2, y + CELL - 2), _shade(share))
            count = f"{counts_CC[row, column]:,}"
            draw.text((x + wide / 2, y + CELL / 2), count, "white" if share > 0.5 else "black", font, "mm")
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _shade(share: float) -> tuple[int, int, int]:
    red, green, blue = (255 + share * (DEEP - 255)).astype(int).tolist()
    return red, green, blue


def _drawable(label: str, at: int) -> str:
    """The label as the font has it: its number among the labels where letters are missing, its beginning where long."""
    return label[:16] if label.isprintable() and label.isascii() and label else f"class {at}"


def _fewer(labels: Sequence[str], counts_CC: np.ndarray) -> tuple[list[str], np.ndarray]:
    if len(labels) <= MOST_CLASSES:
        return list(labels), counts_CC
    kept = np.sort(np.argsort(-counts_CC.sum(1), kind="stable")[: MOST_CLASSES - 1])
    of = np.full(len(labels), len(kept))
    of[kept] = np.arange(len(kept))
    joined_CC = np.zeros((len(kept) + 1, len(kept) + 1), np.int64)
    np.add.at(joined_CC, (of[:, None], of[None, :]), counts_CC)
    return [*(labels[at] for at in kept), "the rest"], joined_CC
