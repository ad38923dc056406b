"""Diagnostic tasks keep the promises of tasks, and their answers can be found in their rows."""

import operator
from functools import reduce
from itertools import pairwise
from statistics import median

from deepmine_auto import Source
from deepmine_auto.testing.task import ClassificationPromises, TaskPromises
from deepmine_plugins.tasks.associative_recall import AssociativeRecall
from deepmine_plugins.tasks.characters import UNDERSCORE, Characters
from deepmine_plugins.tasks.copy_memory import CopyMemory
from deepmine_plugins.tasks.induction import Induction
from deepmine_plugins.tasks.list_ops import ListOps
from deepmine_plugins.tasks.needle import Needle
from deepmine_plugins.tasks.reversal import Reversal


class TestAssociativeRecall(TaskPromises):
    task = AssociativeRecall


class TestCopyMemory(TaskPromises):
    task = CopyMemory


class TestInduction(TaskPromises):
    task = Induction


class TestNeedle(TaskPromises):
    task = Needle


class TestReversal(TaskPromises):
    task = Reversal


class TestCharacters(TaskPromises):
    task = Characters


class TestListOps(ClassificationPromises):
    task = ListOps


def lines(task):
    rows = task().read(Source())
    return [(symbols.split(), answers.split()) for symbols, answers in zip(rows.inputs, rows.labels, strict=True)]


def after(symbol, symbols):
    return symbols[symbols.index(symbol) + 1]


def test_a_key_is_answered_by_the_value_that_stood_behind_it():
    for symbols, answers in lines(AssociativeRecall):
        asked = [(each, answer) for each, answer in zip(symbols, answers, strict=True) if answer != "_"]
        assert len(asked) == 8
        assert all(after(key, symbols) == answer for key, answer in asked)


def test_the_secret_is_asked_for_after_the_silence():
    for symbols, answers in lines(CopyMemory):
        assert symbols[:8] == answers[-8:]
        assert set(symbols[8:-8]) == {"-"}
        assert set(answers[:-8]) == {"_"}


def test_every_symbol_of_a_line_but_its_last_asks_once_what_followed_it_there():
    for symbols, answers in lines(Induction):
        line, asked = symbols[:16], symbols[16:]
        assert len({*line}) == 16
        assert sorted(asked) == sorted(line[:-1])
        assert answers == ["_"] * 16 + [after(each, line) for each in asked]


def test_the_needle_stands_once_before_the_end_and_asks_what_followed():
    for symbols, answers in lines(Needle):
        assert symbols.count(symbols[-1]) == 2
        assert answers[-1] == after(symbols[-1], symbols)


def test_the_haystacks_have_four_lengths():
    assert {len(symbols) for symbols, _ in lines(Needle)} == {32, 64, 128, 256}


def test_the_answers_behind_the_bar_are_the_source_backwards():
    for symbols, answers in lines(Reversal):
        source, target = symbols[: symbols.index("|")], answers[symbols.index("|") :]
        assert target == source[::-1]
        assert symbols[len(source) + 1 :] == target[:-1]


def test_each_character_is_answered_by_the_next():
    rows = lines(Characters)
    assert all(symbols[1:] == answers[:-1] for symbols, answers in rows)
    assert all(answers[-1] == following[0] for (_, answers), (following, _) in pairwise(rows))


def test_every_character_is_asked_underscores_too():
    """`_` would say that nothing is asked there."""
    asked = {each for _, answers in lines(Characters) for each in answers}
    assert UNDERSCORE in asked
    assert "_" not in asked


def value(symbols):
    """A list of operations, worked out from the innermost outwards."""
    if symbols[0] != "(":
        return int(symbols[0])
    stack = []
    for each in symbols:
        stack.append(each)
        if each == ")":
            start = len(stack) - 1 - stack[::-1].index("(")
            name, *digits = stack[start + 1 : -1]
            numbers = [int(digit) for digit in digits]
            operations = {
                "max": max,
                "min": min,
                "med": lambda numbers: int(median(numbers)),
                "sm": lambda numbers: reduce(operator.add, numbers) % 10,
            }
            stack[start:] = [str(operations[name](numbers))]
    return int(stack[0])


def test_a_list_of_operations_has_the_value_that_its_label_says():
    rows = ListOps().read(Source())
    assert all(str(value(text.split())) == label for text, label in zip(rows.inputs, rows.labels, strict=True))
    assert len(set(rows.labels)) == 10
