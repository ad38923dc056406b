"""The mean of several models is a mean of probabilities, and a task takes it like one model's outputs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deepmine_auto.ensemble.averaging import averaged

LOGITS = st.floats(-30, 30, width=32)


def softmax(outputs):
    e = np.exp(outputs.astype(np.float64) - outputs.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@given(arrays(np.float32, (2, 4, 3), elements=LOGITS), st.floats(0.05, 0.95))
def test_the_softmax_of_the_mean_is_the_mean_of_the_softmaxes(outputs, share):
    found = averaged([*outputs], [share, 1 - share])
    expected = share * softmax(outputs[0]) + (1 - share) * softmax(outputs[1])
    np.testing.assert_allclose(softmax(found), expected, atol=1e-9)
    np.testing.assert_allclose(np.exp(found), expected, atol=1e-9)


def test_one_that_is_as_sure_as_can_be_leaves_the_mean_finite():
    found = averaged([np.array([[2000.0, 0.0]]), np.array([[-2000.0, 0.0]])], [0.5, 0.5])
    np.testing.assert_allclose(found, np.log([[0.5, 0.5]]))
    assert np.isfinite(averaged([np.array([[2000.0, 0.0]])], [1.0])).all()


def test_a_model_that_finds_all_classes_alike_has_its_say():
    found = averaged([np.zeros((1, 2)), np.log([[0.9, 0.1]])], [0.5, 0.5])
    np.testing.assert_allclose(np.exp(found), [[0.7, 0.3]])


def test_past_the_end_of_a_row_outputs_are_zero_as_those_of_one_model_are():
    outputs = np.array([[[2.0, 1.0], [0.0, 0.0]], [[1.0, 3.0], [4.0, 1.0]]])
    found = averaged([outputs, 2 * outputs], [0.5, 0.5])
    assert found.any(-1).tolist() == [[True, False], [True, True]]


def test_a_token_that_one_member_does_not_reach_is_left_to_the_others():
    short, long = np.array([[[2.0, 1.0]]]), np.array([[[2.0, 1.0], [0.5, 3.0]]])
    found = averaged([short, long], [0.75, 0.25])
    np.testing.assert_allclose(softmax(found), softmax(long))


@pytest.mark.parametrize("shares", [[1.0, 1e-9], [0.5, 0.5]])
def test_equal_members_say_what_each_of_them_says(shares):
    outputs = np.array([[1.0, 2.0, 3.0]])
    total = sum(shares)
    found = averaged([outputs, outputs], [each / total for each in shares])
    np.testing.assert_allclose(softmax(found), softmax(outputs))
