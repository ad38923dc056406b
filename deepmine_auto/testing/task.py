"""What every task promises. Inherit it, name your class, and pytest runs the promises:

    class TestMyTask(TaskPromises):
        task = MyTask

Tasks that extend TextClassification inherit ClassificationPromises. A task without data of its own overrides `rows`.

Shapes: B batch, N rows, L length, D dim, C classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from deepmine_auto.classification import TextClassification
from deepmine_auto.contracts import Prepared, Task
from deepmine_auto.data.rows import PARTS, Rows, Source
from deepmine_auto.data.split import split, without_duplicates
from deepmine_auto.errors import BadInput
from deepmine_auto.objectives import COSTS
from deepmine_auto.testing.drawing import corners, drawn

MOST_ROWS = 400
DIM = 8
ANYWHERE = settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.differing_executors])


class TaskPromises:
    """Promises of a task plugin with its default fields, unless a promise says otherwise."""

    task: ClassVar[type[Task]]

    def rows(self) -> Rows:
        """Some hundred rows; the default takes the first of those that the task brings."""
        rows = self.task().read(Source())
        return without_duplicates(rows.take(range(min(len(rows), MOST_ROWS))))

    def parts(self) -> dict[str, Rows]:
        """The rows, split as in a search."""
        rows = self.rows()
        return dict(zip(PARTS, map(rows.take, split(self.task().strata(rows), 0, rows.parts)), strict=True))

    def test_the_parts_are_disjoint_and_depend_on_the_seed_alone(self) -> None:
        """Every row is in one part, the same part each time, and in another with another seed."""
        rows, task = self.rows(), self.task()
        first, again, other = (split(task.strata(rows), seed) for seed in (0, 0, 1))
        assert sorted(row for part in first for row in part) == list(range(len(rows))), "a row is lost or in two parts"
        assert first == again, "`strata` changes from call to call"
        assert first != other, "`strata` leaves the seed no choice"

    @given(data=st.data())
    @ANYWHERE
    def test_the_loss_is_finite_and_every_weight_of_the_head_has_a_gradient(self, data: st.DataObject) -> None:
        """Wherever the searched fields are drawn in their ranges."""
        task, train = data.draw(drawn(self.task)), self.parts()["train"]
        prepared = task.prepare(train)
        head, x_BLD, keep_BL = task.head(DIM, prepared), *embedded(train, prepared)
        loss = task.loss(head(x_BLD, keep_BL), torch.as_tensor(prepared.targets(train)), prepared)
        torch.autograd.backward(loss)
        assert loss.ndim == 0, f"the loss is one number, not {tuple(loss.shape)}"
        assert loss.isfinite(), f"{task}: the loss is {loss}"
        idle = [name for name, each in head.named_parameters() if each.grad is None or not each.grad.isfinite().all()]
        assert not idle, f"no finite gradient reaches {idle}"

    def test_it_says_whether_each_token_has_an_answer(self) -> None:
        """Targets have a dimension for tokens if `each_token`: techniques for rows of one answer are refused then."""
        task, train = self.task(), self.parts()["train"]
        targets = np.asarray(task.prepare(train).targets(train))
        assert (targets.ndim > 1) == task.each_token, (
            f"each_token is {task.each_token}, and targets are {targets.shape}"
        )

    def test_token_ids_lie_in_the_vocabulary(self) -> None:
        """Every input has at least one, and 0 is left to padding."""
        parts = self.parts()
        prepared = self.task().prepare(parts["train"])
        for rows in parts.values():
            ids = prepared.encode(rows.inputs)
            assert min(map(len, ids)) > 0, "an input has no token"
            assert all(0 < each < prepared.vocabulary for its in ids for each in its), "an id is out of 1..V-1"

    def test_what_stands_for_unknown_words_is_no_word(self) -> None:
        """Techniques write it over words. It is `prepared.unknown`; where none is named, token 1, in no row then."""
        parts = self.parts()
        prepared: Any = self.task().prepare(parts["train"])
        if getattr(prepared, "unknown", None) is not None:
            assert 0 < prepared.unknown < prepared.vocabulary, f"`unknown` is {prepared.unknown}"
            return
        for name, rows in parts.items():
            ids = prepared.encode(rows.inputs)
            assert not any(1 in its for its in ids), f"no `unknown` is named, and token 1 is in a row of {name}"

    def test_the_vectors_fit_the_vocabulary(self) -> None:
        """There is a row for each id, finite, with zeros for padding."""
        prepared = self.task().prepare(self.parts()["train"])
        table_VE = prepared.vectors_VE
        if table_VE is not None:
            assert len(table_VE) == prepared.vocabulary, "the table has other rows than the vocabulary"
            assert np.isfinite(table_VE).all(), "a vector is not finite"
            assert not table_VE[0].any(), "padding has a vector"

    def test_what_is_fitted_depends_on_the_training_rows_alone(self, tmp_path: Path) -> None:
        """What the task has seen before leaves no trace in what it saves."""
        parts, task = self.parts(), self.task()
        task.prepare(parts["train"]).save(fresh(tmp_path / "before"))
        task.prepare(parts["test"]).encode(parts["validation"].inputs)
        task.describe(self.rows())
        task.prepare(parts["train"]).save(fresh(tmp_path / "after"))
        assert contents(tmp_path / "before") == contents(tmp_path / "after"), "other rows changed what was fitted"

    def test_what_is_fitted_depends_on_the_fields_of_fitted_by_alone(self, tmp_path: Path) -> None:
        """Trials that agree in them share it, whatever their other searched fields are."""
        train, ends = self.parts()["train"], corners(self.task)
        for at, (one, other) in enumerate((ends, ends[::-1])):
            alike: Task = replace(other, **{name: getattr(one, name) for name in self.task.fitted_by})  # type: ignore[type-var]
            for name, task in (("one", one), ("alike", alike)):
                task.prepare(train).save(fresh(tmp_path / f"{name}-{at}"))
            same = contents(tmp_path / f"one-{at}") == contents(tmp_path / f"alike-{at}")
            assert same, f"{one} and {alike} fit something else, and `fitted_by` is {self.task.fitted_by}"

    def test_what_is_saved_is_read_back_the_same(self, tmp_path: Path) -> None:
        """The same ids, targets, sizes and vectors."""
        parts, task = self.parts(), self.task()
        prepared = task.prepare(parts["train"])
        prepared.save(fresh(tmp_path / "saved"))
        again = task.load(tmp_path / "saved")
        assert (again.vocabulary, again.outputs) == (prepared.vocabulary, prepared.outputs), "other sizes"
        assert again.encode(parts["test"].inputs) == prepared.encode(parts["test"].inputs), "other token ids"
        np.testing.assert_array_equal(again.targets(parts["test"]), prepared.targets(parts["test"]))
        np.testing.assert_array_equal(again.vectors_VE, prepared.vectors_VE)

    def test_the_objective_has_a_direction(self) -> None:
        """It is one of the scores that a search may optimise."""
        assert self.task.objective in self.task.directions, f"'{self.task.objective}' is not among `directions`"

    def test_the_scores_hold_the_objective(self) -> None:
        """And all others with a direction. All are finite numbers, for outputs of the head itself."""
        task, test, prepared = self.task(), *self.judged()
        scores = task.scores(outputs_of(task, test, prepared), prepared.targets(test))
        assert task.objective in scores, f"'{task.objective}' is not among {sorted(scores)}"
        assert set(task.directions) <= set(scores), f"{sorted(scores)} are not all of {sorted(task.directions)}"
        assert all(type(each) is float and np.isfinite(each) for each in scores.values()), f"{scores}"

    def test_scores_do_not_depend_on_the_order_of_rows(self) -> None:
        """Intervals score rows that are drawn anew, some of them twice."""
        task, test, prepared = self.task(), *self.judged()
        outputs, targets = outputs_of(task, test, prepared), prepared.targets(test)
        rows = np.random.default_rng(0).integers(len(test), size=len(test))
        drawn_anew, sorted_again = (task.scores(outputs[each], targets[each]) for each in (rows, np.sort(rows)))
        assert drawn_anew == pytest.approx(sorted_again, rel=1e-6, abs=1e-9), "other scores in another order"

    def test_no_score_has_the_name_of_a_cost(self) -> None:
        """Every report carries both, by name."""
        assert not set(COSTS) & set(self.task.directions)

    def test_the_baseline_is_judged_as_the_model_is_and_never_sees_the_labels(self) -> None:
        """It fits on train, answers for rows that it has not seen, and other test labels change nothing."""
        task, parts = self.task(), self.parts()
        prepared, test = task.prepare(parts["train"]), parts["test"]
        outputs = task.baseline(parts["train"], test, prepared)
        blind = Rows(test.inputs, [test.labels[0]] * len(test))
        assert len(outputs) == len(test), f"{len(outputs)} outputs for {len(test)} rows"
        assert np.isfinite(task.scores(outputs, prepared.targets(test))[task.objective]), "its score is not finite"
        np.testing.assert_array_equal(task.baseline(parts["train"], blind, prepared), outputs)

    def test_answers_can_be_printed_as_json(self) -> None:
        """One an input, and plain values only."""
        task, test, prepared = self.task(), *self.judged()
        answers = task.answers(outputs_of(task, test, prepared), prepared)
        assert len(answers) == len(test), f"{len(answers)} answers for {len(test)} inputs"
        assert json.loads(json.dumps(answers, allow_nan=False)) == answers, "JSON changes the answers"

    def test_the_description_can_be_printed_as_json(self) -> None:
        """It says how many rows there are."""
        described = self.task().describe(self.rows())
        assert json.loads(json.dumps(described, allow_nan=False)) == described, "JSON changes the description"
        assert described["rows"] == len(self.rows()), "it counts other rows"

    def judged(self) -> tuple[Rows, Prepared]:
        """Rows to be judged on, and what was fitted without them."""
        parts = self.parts()
        return parts["test"], self.task().prepare(parts["train"])


class ClassificationPromises(TaskPromises):
    """Promises of a task that extends TextClassification."""

    task: ClassVar[type[TextClassification]]

    def test_a_word_of_the_test_rows_alone_is_unknown(self) -> None:
        """Unless it is pretrained: whatever two such words are, they have the same ids."""
        train = self.parts()["train"]
        for tokens in ("glove", "word"):
            prepared = self.task(tokens=tokens).prepare(train)
            assert prepared.encode(["qzxvkqzxvk"]) == prepared.encode(["vkqzzxvkqx"]), f"{tokens}: a word was learned"

    def test_a_label_of_the_test_rows_alone_is_refused(self) -> None:
        """With a sentence that names it."""
        prepared = self.task().prepare(self.parts()["train"])
        with pytest.raises(BadInput, match="'no such label'"):
            prepared.targets(Rows(["a text"], ["no such label"]))

    @given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 40), classes=st.integers(2, 6))
    @settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.differing_executors])
    def test_the_scores_equal_those_of_scikit_learn(self, seed: int, rows: int, classes: int) -> None:
        """Also where a class is never true, or never predicted."""
        from sklearn import metrics

        rng = np.random.default_rng(seed)
        outputs_NC, targets_N = rng.normal(0, 3, (rows, classes)), rng.integers(0, classes, rows)
        p_NC = torch.as_tensor(outputs_NC).softmax(-1).numpy()
        expected = {
            "macro_f1": metrics.f1_score(targets_N, outputs_NC.argmax(1), average="macro"),
            "accuracy": metrics.accuracy_score(targets_N, outputs_NC.argmax(1)),
            "log_loss": metrics.log_loss(targets_N, p_NC, labels=range(classes)),
        }
        scores = self.task().scores(outputs_NC, targets_N)
        for name, value in expected.items():
            assert scores[name] == pytest.approx(value, abs=1e-9), f"{name} is {scores[name]}, and should be {value}"


def embedded(rows: Rows, prepared: Prepared) -> tuple[Tensor, Tensor]:
    """Stand in for a backbone: a random vector for each token (B, L, D), and which tokens are real (B, L)."""
    ids = prepared.encode(rows.inputs)
    lengths_B1 = torch.tensor([[len(each)] for each in ids])
    keep_BL = torch.arange(int(lengths_B1.max())) < lengths_B1
    return torch.randn(*keep_BL.shape, DIM, generator=torch.Generator().manual_seed(0)), keep_BL


def outputs_of(task: Task, rows: Rows, prepared: Prepared) -> np.ndarray:
    """The outputs of a head that has learned nothing."""
    with torch.no_grad():
        outputs: Tensor = task.head(DIM, prepared).eval()(*embedded(rows, prepared))
    return outputs.numpy()


def fresh(folder: Path) -> Path:
    """Make a folder."""
    folder.mkdir()
    return folder


def contents(folder: Path) -> Mapping[str, Any]:
    """The bytes of each file of a folder."""
    return {each.name: each.read_bytes() for each in folder.iterdir()}
