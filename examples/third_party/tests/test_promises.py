"""The promises that deepmine-auto's own plugins keep too, inherited."""

from deepmine_brackets.brackets import Brackets
from deepmine_brackets.l2 import L2
from deepmine_brackets.signum import Signum

from deepmine_auto.testing.attention import AttentionPromises
from deepmine_auto.testing.optimizer import OptimizerPromises
from deepmine_auto.testing.task import ClassificationPromises


class TestL2(AttentionPromises):
    variant = L2


class TestSignum(OptimizerPromises):
    optimizer = Signum


class TestBrackets(ClassificationPromises):
    task = Brackets
