"""What is computed a few queries at a time fits a processor's cache on a CPU, and keeps a GPU busy. There is no GPU
here: tensors without numbers say how they would be cut."""

import pytest
import torch
from torch._subclasses import FakeTensorMode

from deepmine_plugins.attention import additive, entmax


def parts_of(cut, *shapes, device):
    with FakeTensorMode():
        return len(cut(*(torch.empty(each, device=device) for each in shapes)))


@pytest.mark.parametrize(("device", "expected"), [("cpu", 256), ("cuda", 1)])
def test_entmax_of_a_batch_is_one_part_on_a_gpu(device, expected):
    assert parts_of(entmax._few, (32, 4, 512, 512), device=device) == expected


@pytest.mark.parametrize(("device", "expected"), [("cpu", 256), ("cuda", 8)])
def test_additive_scores_of_a_batch_are_few_parts_on_a_gpu(device, expected):
    assert parts_of(additive._few, (32, 8, 256, 32), (32, 8, 256, 32), device=device) == expected


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_is_too_large_goes_query_by_query(device):
    assert parts_of(entmax._few, (2**14, 4, 16, 2**12), device=device) == 16
    assert parts_of(additive._few, (2**9, 8, 16, 64), (2**9, 8, 2**9, 64), device=device) == 16
