"""Equality is measured in a clean process, and means equality."""

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from deepmine_auto.bundle.parity import NotEqual, difference, verify


def test_a_saved_bundle_is_equal_in_a_clean_process():
    assert verify(tiny.bundle(), *tiny.asked()) <= 1e-6


def test_a_file_named_like_a_library_is_not_taken_for_it(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise SystemExit('the wrong torch')")
    monkeypatch.chdir(tmp_path)
    assert verify(tiny.bundle(), *tiny.asked()) <= 1e-6


def test_what_cannot_be_reloaded_says_why(tmp_path):
    with pytest.raises(NotEqual, match=r"cannot be reloaded: .*is no bundle"):
        verify(tmp_path, *tiny.asked())


def test_other_shapes_and_nan_are_never_equal():
    ones = np.ones((2, 2), np.float32)
    assert difference(ones, np.ones((2, 1), np.float32)) == np.inf
    assert not difference(ones * np.nan, ones) <= 1e-6


@given(st.floats(-100, 100), st.floats(1e-3, 1))
def test_the_difference_is_relative_to_large_outputs_alone(value, by):
    found = difference(np.array([[value + by]]), np.array([[value]]))
    assert found == pytest.approx(by / max(1, abs(value)), rel=1e-6)
