"""Rows that do not fit into memory are judged some at a time.

Shapes: B batch, L length.
"""

import gc
import weakref
from functools import partial

import pytest
import torch
from torch import nn

from deepmine_auto.contracts import Mixed
from deepmine_auto.training.batching import Columns
from deepmine_auto.training.outputs import outputs_of

ROWS = Columns.of([[each] for each in range(1, 13)])
ERRORS = {
    "python": partial(MemoryError, "no room"),
    "cuda": partial(torch.OutOfMemoryError, "CUDA out of memory"),
    "cpu": partial(RuntimeError, "DefaultCPUAllocator: can't allocate memory"),
}


class Narrow(nn.Module):
    """It has room for so many rows at once, and says of each its token."""

    def __init__(self, room, error):
        super().__init__()
        self.room, self.error, self.seen, self.held = room, error, [], []

    def forward(self, tokens_BL, keep_BL):
        gc.collect()
        assert all(each() is None for each in self.held), "what failed before holds no memory"
        self.seen.append(len(tokens_BL))
        if len(tokens_BL) > self.room:
            half_done = torch.zeros(3)
            self.held.append(weakref.ref(half_done))
            raise self.error()
        return Mixed(tokens_BL[:, :1])


def judged(model, rows_at_once):
    return outputs_of(model, None, ROWS, torch.device("cpu"), rows_at_once)


@pytest.mark.parametrize("error", ERRORS.values(), ids=list(ERRORS))
def test_half_as_many_rows_are_tried_until_they_fit(error):
    model = Narrow(3, error)
    assert judged(model, 8)[:, 0].tolist() == list(range(1, 13))
    assert model.seen == [8, 4, *[2] * 6]


def test_where_not_even_one_row_fits_the_error_is_raised():
    model = Narrow(0, ERRORS["cuda"])
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        judged(model, 4)
    assert model.seen == [4, 2, 1]


def test_any_other_error_is_raised_at_once():
    model = Narrow(3, partial(RuntimeError, "shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        judged(model, 8)
    assert model.seen == [8]
