import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from deepmine_auto.testing.technique import CLASSES, TechniquePromises, Trial
from deepmine_plugins.techniques.label_smoothing import LabelSmoothing


class TestLabelSmoothing(TechniquePromises):
    technique = LabelSmoothing


@given(smoothing=st.floats(0.02, 0.2), rows=st.integers(1, 6), seed=st.integers(0, 99))
def test_it_equals_the_smoothing_of_torch(smoothing, rows, seed):
    generator = torch.Generator().manual_seed(seed)
    outputs_BC = torch.randn(rows, CLASSES, generator=generator).double()
    targets_B = torch.randint(CLASSES, (rows,), generator=generator)
    applied = Trial(LabelSmoothing(smoothing=smoothing)).applied
    ours = applied.on_loss(cross_entropy(outputs_BC, targets_B), outputs_BC, targets_B)
    torch.testing.assert_close(ours, cross_entropy(outputs_BC, targets_B, label_smoothing=smoothing))
