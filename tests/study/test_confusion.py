"""The picture of a confusion matrix."""

import io
import struct

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from deepmine_auto.study.confusion import MOST_CLASSES, _counted, confusion_png


def drawn(labels, targets, predicted):
    """The picture, decoded."""
    return Image.open(io.BytesIO(confusion_png(labels, np.array(targets), np.array(predicted))))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=50))
def test_each_cell_counts_what_was_true_down_and_predicted_across(pairs):
    targets, predicted = np.array(pairs, np.int64).reshape(-1, 2).T
    names, counts = _counted("abcd", targets, predicted)
    assert names == list("abcd")
    assert counts.tolist() == [[pairs.count((true, said)) for said in range(4)] for true in range(4)]


@given(st.lists(st.integers(0, 99), max_size=200))
def test_of_many_classes_the_rarest_are_one_and_no_row_is_lost(targets):
    targets = np.array(targets, np.int64)
    names, counts = _counted([f"label {at}" for at in range(100)], targets, targets)
    assert names[-1] == "the rest"
    assert counts.shape == (MOST_CLASSES, MOST_CLASSES)
    assert counts.sum() == np.trace(counts) == len(targets)
    assert counts.diagonal()[:-1].min() >= 0
    frequencies = np.sort(np.bincount(targets, minlength=100))[::-1]
    assert counts.diagonal()[:-1].sum() == frequencies[: MOST_CLASSES - 1].sum()


def test_it_is_a_png_in_which_the_diagonal_of_a_perfect_model_is_dark():
    picture = drawn(["bad", "good"], [0, 1, 1], [0, 1, 1])
    assert picture.format == "PNG"
    wide, high = picture.size
    corners = [(wide - 16, high - 16), (wide - 16, high - 16 - 56)]
    (diagonal, beside) = (sum(picture.getpixel(each)) for each in corners)
    assert diagonal < 300 < 700 < beside


def test_the_most_classes_and_the_longest_labels_make_a_picture_of_bearable_size():
    labels = [f"{at} " + "w" * 500 for at in range(1000)]
    content = confusion_png(labels, np.arange(1000), np.arange(1000))
    wide, high = struct.unpack(">II", content[16:24])
    assert wide * high < 12_000_000


def test_a_label_that_the_font_cannot_write_is_its_number():
    names, _ = _counted(["消极", "good", "", "a\nb"], np.array([0]), np.array([0]))
    assert names == ["class 0", "good", "class 2", "class 3"]
