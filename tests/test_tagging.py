"""One answer a token."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss

from deepmine_auto import Rows, Source
from deepmine_auto.errors import BadInput
from deepmine_auto.tagging import IGNORED, SymbolsPrepared, Tagging


class Tags(Tagging):
    name = "tags"
    source = "a test"


ROWS = Rows(["a b c", "b a", "c a b a"], ["_ x y", "x _", "_ y _ x"])
PREPARED = Tags().prepare(ROWS)


def test_symbols_and_answers_are_those_of_the_training_rows():
    assert PREPARED.symbols == ("[PAD]", "[UNK]", "a", "b", "c")
    assert PREPARED.answers == ("x", "y")
    assert PREPARED.encode(["a z", ""]) == [[2, 1], [1]]
    assert PREPARED.unknown == 1
    assert PREPARED.targets(ROWS).tolist() == [[-100, 0, 1, -100], [0, -100, -100, -100], [-100, 1, -100, 0]]


def test_what_divides_source_and_target_is_a_mark_and_else_there_is_none():
    pairs = Tags().prepare(Rows(["a b | b"], ["_ _ x y"]))
    assert pairs.marks == (pairs.separator,) == (pairs.symbols.index("|"),)
    assert PREPARED.marks == ()


def test_an_answer_that_no_training_row_has_is_refused_with_the_nearest():
    with pytest.raises(BadInput, match=r"'z' is no answer of the training rows\. There are: _, x, y"):
        PREPARED.targets(Rows(["a"], ["z"]))


def test_as_many_answers_as_symbols_are_needed():
    with pytest.raises(BadInput, match=r"Row 2 has 1 answers to 2 symbols\. Write one for each"):
        PREPARED.targets(Rows(["a", "a b"], ["x", "y"]))


def test_answers_are_counted_also_where_a_row_is_cut(tmp_path):
    """What is read of both may be as long, and shifted."""
    task = Tags(max_len=8)
    long = Rows(["a " * 12, "a b"], ["x " * 10, "x y"])
    with pytest.raises(BadInput, match=r"Row 1 has 10 answers to 12 symbols\."):
        task.prepare(long).targets(long)


def test_rows_that_are_cut_are_counted_and_described_as_they_are(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("text,label\n" + "".join(f"{'a ' * words},{'x ' * words}\n" for words in (3, 12, 5)))
    rows = Tags(max_len=8).read(Source({"all": file}))
    assert "1 of 3 rows have more than 8 symbols and are cut there." in rows.notes
    assert Tags(max_len=8).describe(rows)["longest_words"] == 12


def test_one_answer_alone_teaches_nothing():
    with pytest.raises(BadInput, match=r"have 1 different answers\. Give rows of two"):
        Tags().prepare(Rows(["a b"], ["_ x"]))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tags.csv", "text,label\na b,_ x\nb a,_ X\n"),
        ("tags.jsonl", '{"text": "a b", "label": "_ x"}\n{"text": "b a", "label": "_ X"}\n'),
    ],
)
def test_a_users_lines_of_answers_are_no_classes(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    rows = Tags().read(Source({"all": tmp_path / name}))
    assert rows == Rows(["a b", "b a"], ["_ x", "_ X"])


def test_a_users_rows_may_all_have_the_same_answers(tmp_path):
    (tmp_path / "tags.csv").write_text("text,label\na b,x y\nb a,x y\n")
    rows = Tags().read(Source({"all": tmp_path / "tags.csv"}))
    assert Tags().prepare(rows).answers == ("x", "y")


def test_what_was_prepared_is_read_again(tmp_path):
    PREPARED.save(tmp_path)
    assert Tags().load(tmp_path) == PREPARED
    (tmp_path / "prepared.json").write_text("{}")
    with pytest.raises(BadInput, match=r"is not what a tagging task saved: .*Export the model again"):
        SymbolsPrepared.load(tmp_path)


def outputs_of(seed=0):
    return np.random.default_rng(seed).normal(size=(3, 4, 2))


def test_scores_are_those_of_scikit_learn_over_the_tokens_that_are_asked():
    targets, outputs = PREPARED.targets(ROWS), outputs_of()
    asked = targets != IGNORED
    found = Tags().scores(outputs, targets)
    p = np.exp(outputs[asked]) / np.exp(outputs[asked]).sum(-1, keepdims=True)
    assert found["accuracy"] == pytest.approx(accuracy_score(targets[asked], outputs[asked].argmax(-1)))
    assert found["log_loss"] == pytest.approx(log_loss(targets[asked], p, labels=[0, 1]))
    perfect = np.eye(2)[np.where(asked, targets, 0)]
    assert Tags().scores(perfect, targets)["whole_rows"] == 1.0


def test_the_loss_is_the_log_loss_however_far_the_batch_is_padded():
    targets, outputs = PREPARED.targets(ROWS), outputs_of()
    wider = np.pad(targets, ((0, 0), (0, 3)), constant_values=IGNORED)
    for each in (targets, wider):
        loss = Tags().loss(torch.tensor(outputs), torch.tensor(each), PREPARED)
        assert float(loss) == pytest.approx(Tags().scores(outputs, targets)["log_loss"])


def test_a_batch_that_asks_nothing_has_no_loss():
    nothing = torch.full((1, 4), IGNORED)
    assert float(Tags().loss(torch.zeros(1, 4, 2), nothing, PREPARED)) == 0.0


def test_bigrams_answer_what_they_have_seen():
    rows = Rows(["a b", "a c", "b c"] * 5, ["x y", "x x", "y x"] * 5)
    prepared = Tags().prepare(rows)
    log_p = Tags().baseline(rows, rows, prepared)
    assert Tags().scores(log_p, prepared.targets(rows))["accuracy"] == 1.0


def test_tokens_past_the_end_of_a_row_are_not_answered():
    outputs = outputs_of()
    outputs[1, 2:] = 0.0
    first, second, _ = Tags().answers(outputs, PREPARED)
    assert (len(first["answers"]), len(second["answers"])) == (4, 2)
    assert all(0.5 <= each <= 1.0 for each in first["probabilities"])
