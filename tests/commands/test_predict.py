"""`predict` prints what `load` answers, from arguments, standard input or a file."""

import json

import pytest
import tiny
from click.testing import CliRunner

import deepmine_auto
from deepmine_auto.commands.predict import predict
from deepmine_auto.errors import BadInput


def run(*args, stdin=None):
    return CliRunner().invoke(predict, [str(tiny.bundle()), *args], input=stdin, catch_exceptions=False)


def expected(*texts):
    return deepmine_auto.load(tiny.bundle()).predict(texts)


def test_labels_and_probabilities_stand_in_columns():
    lines = run("so good", "awful").stdout.splitlines()
    for line, answer in zip(lines, expected("so good", "awful"), strict=True):
        label, probability = line.split()
        assert (label, float(probability)) == (answer["label"], pytest.approx(answer["probability"], abs=1e-3))
    assert len({line.rindex("  ") for line in lines}) == 1


def test_json_is_one_answer_a_line():
    lines = run("--json", "so good", "awful").stdout.splitlines()
    assert [json.loads(line) for line in lines] == expected("so good", "awful")


@pytest.mark.parametrize("dash", [["-"], []])
def test_standard_input_is_one_text_a_line(dash):
    found = run(*dash, "--json", stdin="so good\n\n  \nüble Sache\n").stdout.splitlines()
    assert [json.loads(line) for line in found] == expected("so good", "üble Sache")


@pytest.mark.parametrize(
    ("name", "text", "more"),
    [
        ("x.csv", "id,tweet\n1,so good\n2,awful\n", []),
        ("x.tsv", "id\ttold\n1\tso good\n2\tawful\n", ["--text-column", "told"]),
        ("x.jsonl", '{"text": "so good"}\n{"text": "awful"}\n', []),
        ("x.txt", "so good\r\nawful\r\n", []),
    ],
)
def test_texts_of_a_file_are_answered_in_order(tmp_path, name, text, more):
    (tmp_path / name).write_text(text)
    found = run("--json", "--file", str(tmp_path / name), *more).stdout.splitlines()
    assert [json.loads(line) for line in found] == expected("so good", "awful")


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["a", "--file", "x.csv"], r"Texts and --file were both given"),
        (["a", "--text-column", "b"], r"--text-column was given without --file"),
        (["--file", "missing.csv"], r"missing\.csv does not exist"),
        ([""], r"There is no text to answer\. Type one"),
        (["-"], r"There is no text to answer"),
    ],
)
def test_bad_input_is_a_sentence(args, told):
    with pytest.raises(BadInput, match=told):
        run(*args, stdin="")


def test_an_unknown_column_is_refused_with_the_nearest(tmp_path):
    (tmp_path / "x.csv").write_text("text,label\na,b\n")
    with pytest.raises(BadInput, match=r"'txt' is no column of .*Did you mean 'text'"):
        run("--file", str(tmp_path / "x.csv"), "--text-column", "txt")


@pytest.mark.parametrize("given", ["file", "pipe"])
def test_an_answer_belongs_to_what_stands_between_two_line_feeds(tmp_path, given):
    texts = ["so\u2028good", "awful\x0cday\x85now", "so so"]
    (tmp_path / "x.txt").write_bytes("\r\n".join(texts).encode())
    args = ["--file", str(tmp_path / "x.txt")] if given == "file" else ["-"]
    found = run("--json", *args, stdin=(tmp_path / "x.txt").read_bytes()).stdout.splitlines()
    assert [json.loads(line) for line in found] == expected(*texts)


def test_a_blank_line_of_a_file_is_refused(tmp_path):
    (tmp_path / "x.txt").write_text("so good\n\nawful\n")
    with pytest.raises(BadInput, match=r"1 of 3 lines of .*x\.txt are blank, the first is line 2\. Remove them"):
        run("--file", str(tmp_path / "x.txt"))


def test_columns_of_a_file_that_may_all_be_the_texts_are_named(tmp_path):
    (tmp_path / "x.csv").write_text("told,remark\nso good,a very long remark\n")
    with pytest.raises(BadInput, match=r"texts of .*x\.csv may be column 'told' or 'remark'\. Name it with --text"):
        run("--file", str(tmp_path / "x.csv"))


def test_standard_input_that_is_not_utf_8_is_refused():
    with pytest.raises(BadInput, match="Standard input is not UTF-8"):
        run("-", stdin=b"\xff\xfe")


def test_a_folder_that_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(BadInput, match="is no bundle"):
        CliRunner().invoke(predict, [str(tmp_path), "a"], catch_exceptions=False)


def test_a_text_that_was_taken_for_a_folder_is_no_bundle_however_long_it_is():
    with pytest.raises(BadInput, match="is no bundle"):
        CliRunner().invoke(predict, ["so good " * 100, "another"], catch_exceptions=False)


def test_an_empty_text_that_was_typed_is_refused_and_not_left_out():
    with pytest.raises(BadInput, match=r"1 of 2 texts are empty\. Leave them out"):
        run(" ", "so good")
