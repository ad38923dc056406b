"""`evaluate` prints scores with intervals, the classes, and the sentence."""

import json

import pytest
import tiny
from click.testing import CliRunner

from deepmine_auto.commands.evaluate import evaluate
from deepmine_auto.errors import BadInput


@pytest.fixture
def data(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("text,label\nso good,positive\nawful,negative\nbest day,positive\n")
    return file


def run(file, *args):
    return CliRunner().invoke(evaluate, [str(tiny.bundle()), "--data", str(file), *args], catch_exceptions=False)


def test_the_sentence_comes_first_then_scores_and_classes(data):
    lines = run(data).stdout.splitlines()
    assert lines[0].startswith("macro-F1 ")
    assert [line.split()[0] for line in lines if line] == [
        "macro-F1", "score", "macro_f1", "accuracy", "log_loss", "class", "negative", "positive",
    ]  # fmt: skip


def test_json_holds_the_same(data):
    found = json.loads(run(data, "--json").stdout)
    assert found["rows"] == 3
    assert set(found["scores"]["accuracy"]) == {"value", "low", "high"}
    assert set(found["classes"]["negative"]) == {"precision", "recall", "f1", "rows"}


def test_a_guessed_column_is_told_on_standard_error(tmp_path):
    (tmp_path / "rows.csv").write_text("told,label\nso good,positive\n")
    assert "The texts are column 'told'" in run(tmp_path / "rows.csv").stderr


def test_unknown_labels_are_refused_with_the_list(tmp_path):
    (tmp_path / "rows.csv").write_text("text,label\na,neutral\n")
    with pytest.raises(BadInput, match=r"does not know the label 'neutral'\. It knows 'negative', 'positive'"):
        run(tmp_path / "rows.csv")


def test_an_unknown_column_is_refused(data):
    with pytest.raises(BadInput, match=r"'labl' is no column of .*Did you mean 'label'"):
        run(data, "--label-column", "labl")
