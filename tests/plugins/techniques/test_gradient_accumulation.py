"""What a batch in parts is to a training stands in tests/training/test_asked_parts.py."""

import pytest

from deepmine_auto.testing.technique import TechniquePromises, Trial
from deepmine_plugins.techniques.gradient_accumulation import GradientAccumulation


class TestGradientAccumulation(TechniquePromises):
    technique = GradientAccumulation


@pytest.mark.parametrize("parts", [2, 4, 8, 16])
def test_it_asks_for_the_parts_that_are_chosen(parts):
    assert Trial(GradientAccumulation(parts=parts)).applied.parts() == parts
