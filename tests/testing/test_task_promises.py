"""Each promise is broken on purpose, and the promise notices."""

import itertools
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
import pytest
import torch

from deepmine_auto import Choice, Rows, Source, TextClassification
from deepmine_auto.testing.task import ClassificationPromises

MOODS = Rows([f"{word} {i} days" for i in range(20) for word in ("good", "bad")], ["up", "down"] * 20)


@dataclass(frozen=True, kw_only=True)
class Mood(TextClassification):
    name: ClassVar[str] = "mood"
    source: ClassVar[str] = "tests"

    def read(self, source: Source) -> Rows:
        return MOODS


class TestMood(ClassificationPromises):
    task = Mood


def broken(promise, cls, *arguments):
    """Run one promise of a task that breaks it."""
    promises = type("Promises", (ClassificationPromises,), {"task": cls})()
    getattr(promises, promise)(*arguments)


class RandomStrata(Mood):
    calls = itertools.count(1)

    def strata(self, rows):
        run = next(self.calls)
        return ["ab"[at // run % 2] for at in range(len(rows))]


class NanLoss(Mood):
    def loss(self, outputs, targets, prepared):
        return super().loss(outputs, targets, prepared) * torch.nan


class LossARow(Mood):
    def loss(self, outputs, targets, prepared):
        return torch.nn.functional.cross_entropy(outputs, targets, reduction="none").square()


class IdleHead(Mood):
    def head(self, dim, prepared):
        head = super().head(dim, prepared)
        head.idle = torch.nn.Linear(1, 1)
        return head


@dataclass(frozen=True)
class Changed:
    """What was prepared, with one thing changed."""

    inner: object
    ids: object = None
    vectors: object = None

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def encode(self, inputs):
        return self.ids if self.ids is not None else self.inner.encode(inputs)

    @property
    def vectors_VE(self):
        return self.inner.vectors_VE if self.vectors is None else self.vectors


class EmptyIds(Mood):
    def prepare(self, train):
        return Changed(super().prepare(train), ids=[[]])


class PaddingIds(Mood):
    def prepare(self, train):
        return Changed(super().prepare(train), ids=[[0]])


class IdsBeyond(Mood):
    def prepare(self, train):
        inner = super().prepare(train)
        return Changed(inner, ids=[[inner.vocabulary]])


@dataclass(frozen=True)
class Nameless(Changed):
    """It does not say which token stands for unknown words."""

    def __getattr__(self, name):
        if name == "unknown":
            raise AttributeError(name)
        return super().__getattr__(name)


class WritesWordsAtOne(Mood):
    def prepare(self, train):
        return Nameless(super().prepare(train), ids=[[1]])


@dataclass(frozen=True)
class Padded(Changed):
    unknown: int = 0


class HidesWordsAsPadding(Mood):
    def prepare(self, train):
        return Padded(super().prepare(train))


class FewVectors(Mood):
    def prepare(self, train):
        return Changed(super().prepare(train), vectors=np.zeros((3, 2)))


class PaddingVector(Mood):
    def prepare(self, train):
        inner = super().prepare(train)
        return Changed(inner, vectors=np.ones_like(inner.vectors_VE))


class Remembers(Mood):
    seen: ClassVar[set] = set()

    def prepare(self, train):
        self.seen.update(train.inputs)
        return super().prepare(Rows([*train.inputs, *sorted(self.seen)], [*train.labels, *["up"] * len(self.seen)]))


class ForgetsLength(Mood):
    def load(self, folder):
        loaded = super().load(folder)
        return replace(loaded, fitted=replace(loaded.fitted, max_len=1))


class NoObjective(Mood):
    def scores(self, outputs, targets):
        return {"accuracy": 1.0}


class OneScore(Mood):
    def scores(self, outputs, targets):
        return {"macro_f1": 1.0}


class NoDirection(Mood):
    directions: ClassVar[dict] = {"accuracy": "maximize"}


class ScoresTheFirstRow(Mood):
    def scores(self, outputs, targets):
        return {**super().scores(outputs, targets), "accuracy": float(outputs[0, 0])}


@dataclass(frozen=True, kw_only=True)
class ReadsASearchedField(Mood):
    loud: Annotated[bool, Choice(False, True)] = False

    def prepare(self, train):
        return super().prepare(Rows([each.upper() * (1 + self.loud) for each in train.inputs], train.labels))


@dataclass(frozen=True, kw_only=True)
class DeclaresASearchedField(ReadsASearchedField):
    fitted_by: ClassVar[tuple[str, ...]] = (*Mood.fitted_by, "loud")


class OfTokens(Mood):
    each_token = True


class MicroF1(Mood):
    def scores(self, outputs, targets):
        scores = super().scores(outputs, targets)
        return {**scores, "macro_f1": scores["accuracy"]}


class Peeks(Mood):
    def baseline(self, train, test, prepared):
        return np.eye(2)[prepared.targets(test)]


class Arrays(Mood):
    def answers(self, outputs, prepared):
        return [{"label": each.argmax()} for each in outputs]


class Sets(Mood):
    def describe(self, rows):
        return {"rows": len(rows), "labels": tuple(rows.labels)}


class LearnsOnTest(Mood):
    def prepare(self, train):
        return super().prepare(Rows([*train.inputs, "qzxvkqzxvk qzxvkqzxvk"], [*train.labels, "up"]))


class AnyLabel(Mood):
    def prepare(self, train):
        return Lenient(super().prepare(train))


@dataclass(frozen=True)
class Lenient:
    inner: object

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def targets(self, rows):
        return np.zeros(len(rows), np.int64)


@pytest.mark.parametrize(
    ("promise", "cls", "why"),
    [
        ("the_parts_are_disjoint_and_depend_on_the_seed_alone", RandomStrata, "`strata` changes from call to call"),
        ("the_loss_is_finite_and_every_weight_of_the_head_has_a_gradient", NanLoss, "the loss is nan"),
        ("the_loss_is_finite_and_every_weight_of_the_head_has_a_gradient", IdleHead, "no finite gradient reaches"),
        ("it_says_whether_each_token_has_an_answer", OfTokens, r"each_token is True, and targets are \(\d+,\)"),
        ("token_ids_lie_in_the_vocabulary", EmptyIds, "an input has no token"),
        ("token_ids_lie_in_the_vocabulary", PaddingIds, "an id is out of"),
        ("token_ids_lie_in_the_vocabulary", IdsBeyond, "an id is out of"),
        ("what_stands_for_unknown_words_is_no_word", WritesWordsAtOne, "and token 1 is in a row of train"),
        ("what_stands_for_unknown_words_is_no_word", HidesWordsAsPadding, "`unknown` is 0"),
        ("the_vectors_fit_the_vocabulary", FewVectors, "other rows than the vocabulary"),
        ("the_vectors_fit_the_vocabulary", PaddingVector, "padding has a vector"),
        ("the_scores_hold_the_objective", NoObjective, "'macro_f1' is not among"),
        ("the_scores_hold_the_objective", OneScore, "are not all of"),
        ("the_objective_has_a_direction", NoDirection, "'macro_f1' is not among `directions`"),
        ("scores_do_not_depend_on_the_order_of_rows", ScoresTheFirstRow, "other scores in another order"),
        ("the_scores_equal_those_of_scikit_learn", MicroF1, "macro_f1 is .* and should be"),
        ("the_baseline_is_judged_as_the_model_is_and_never_sees_the_labels", Peeks, "not equal"),
        ("the_description_can_be_printed_as_json", Sets, "JSON changes the description"),
        ("a_word_of_the_test_rows_alone_is_unknown", LearnsOnTest, "a word was learned"),
    ],
)
def test_a_broken_promise_is_noticed(promise, cls, why):
    with pytest.raises(AssertionError, match=why):
        broken(f"test_{promise}", cls)


def test_a_loss_a_row_is_noticed():
    with pytest.raises(RuntimeError, match="scalar outputs"):
        broken("test_the_loss_is_finite_and_every_weight_of_the_head_has_a_gradient", LossARow)


def test_answers_that_are_no_json_are_noticed():
    with pytest.raises(TypeError, match="not JSON serializable"):
        broken("test_answers_can_be_printed_as_json", Arrays)


def test_a_task_that_accepts_any_label_is_noticed():
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        broken("test_a_label_of_the_test_rows_alone_is_refused", AnyLabel)


@pytest.mark.parametrize(
    ("promise", "cls", "why"),
    [
        ("what_is_fitted_depends_on_the_training_rows_alone", Remembers, "other rows changed what was fitted"),
        ("what_is_fitted_depends_on_the_fields_of_fitted_by_alone", ReadsASearchedField, "and `fitted_by` is"),
        ("what_is_saved_is_read_back_the_same", ForgetsLength, "other token ids"),
    ],
)
def test_a_promise_about_files_is_noticed_when_broken(promise, cls, why, tmp_path):
    with pytest.raises(AssertionError, match=why):
        broken(f"test_{promise}", cls, tmp_path)


def test_a_task_that_declares_what_it_fits_by_keeps_its_promise(tmp_path):
    broken("test_what_is_fitted_depends_on_the_fields_of_fitted_by_alone", DeclaresASearchedField, tmp_path)
