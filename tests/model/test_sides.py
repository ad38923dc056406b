"""A row is taken apart into source and target, and put together again."""

import pytest
import torch

from deepmine_auto.errors import BadInput
from deepmine_auto.model.sides import sides

BAR = 9


def test_rows_of_different_lengths_are_taken_apart():
    tokens_BL = torch.tensor([[1, 2, BAR, 3, 0], [4, BAR, 5, 6, 7]])
    both = sides(tokens_BL, tokens_BL > 0, BAR)
    assert (both.source_BS * both.keep_BS).tolist() == [[1, 2], [4, 0]]
    assert (both.target_BT * both.keep_BT).tolist() == [[BAR, 3, 0, 0], [BAR, 5, 6, 7]]
    whole_BL1 = both.back(both.target_BT[..., None].double(), 5)
    assert whole_BL1[..., 0].tolist() == [[0, 0, BAR, 3, 0], [0, BAR, 5, 6, 7]]


@pytest.mark.parametrize("row", [[1, 2, 3], [BAR, 1, 2], [1, 2, 0]])
def test_a_row_without_a_source_before_its_separator_is_refused(row):
    tokens_BL = torch.tensor([row])
    with pytest.raises(BadInput, match=r"no source before its separator\. Write source, separator"):
        sides(tokens_BL, tokens_BL > 0, BAR)


def test_a_separator_among_padding_does_not_count():
    with pytest.raises(BadInput, match="no source before its separator"):
        sides(torch.tensor([[1, 2, BAR]]), torch.tensor([[True, True, False]]), BAR)
