"""Every variant of ours keeps what it promises, by the tests that any plugin author inherits."""

from deepmine_auto.testing.attention import AttentionPromises
from deepmine_plugins.attention.additive import Additive
from deepmine_plugins.attention.differential import Differential
from deepmine_plugins.attention.entmax import Entmax
from deepmine_plugins.attention.grouped_query import GroupedQuery
from deepmine_plugins.attention.learned_temperature import LearnedTemperature
from deepmine_plugins.attention.linear import Linear
from deepmine_plugins.attention.multi_head import MultiHead
from deepmine_plugins.attention.rotary import Rotary
from deepmine_plugins.attention.sliding_window import SlidingWindow


class TestMultiHead(AttentionPromises):
    variant = MultiHead


class TestGroupedQuery(AttentionPromises):
    variant = GroupedQuery


class TestSlidingWindow(AttentionPromises):
    variant = SlidingWindow


class TestLinear(AttentionPromises):
    variant = Linear


class TestEntmax(AttentionPromises):
    variant = Entmax


class TestAdditive(AttentionPromises):
    variant = Additive


class TestDifferential(AttentionPromises):
    variant = Differential


class TestLearnedTemperature(AttentionPromises):
    variant = LearnedTemperature


class TestRotary(AttentionPromises):
    variant = Rotary
