"""How often the products of LoRA and its relatives count."""

import pytest

from deepmine_auto.testing.tuning import tuned
from deepmine_plugins.tunings.dora import Dora
from deepmine_plugins.tunings.lora import Lora
from deepmine_plugins.tunings.rslora import RsLora

RANKS = (2, 8, 32)


def factor(tuning):
    """What each product is multiplied by."""
    (factor,) = {each.scaling["default"] for each in tuned(tuning).modules() if hasattr(each, "lora_A")}
    return factor


@pytest.mark.parametrize("kind", [Lora, Dora])
def test_a_product_counts_as_often_as_it_says_whatever_its_rank(kind):
    assert [factor(kind(rank=rank, scale=4.0)) for rank in RANKS] == [4.0, 4.0, 4.0]


def test_with_rslora_it_counts_half_as_often_at_four_times_the_rank_and_at_rank_8_as_with_lora():
    assert [factor(RsLora(rank=rank, scale=4.0)) for rank in RANKS] == pytest.approx([8.0, 4.0, 2.0])
