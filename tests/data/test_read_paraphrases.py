"""Other words for texts: what may not be learned from is left out, and what cannot be meant is refused."""

import csv

import pytest
from tiny_texts import rows

from deepmine_auto.data.kept import SEARCH, digest, extra_of, keep
from deepmine_auto.data.paraphrases import read_paraphrases
from deepmine_auto.data.rows import Extra
from deepmine_auto.data.split import split
from deepmine_auto.errors import BadInput

INPUTS, LOCKED = rows().inputs[:60], rows().inputs[60:]


def written(folder, *pairs, header=("text", "paraphrase")):
    with open(folder / "reworded.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *pairs])
    return folder / "reworded.csv"


def read(folder, *pairs, **more):
    return read_paraphrases(written(folder, *pairs, **more), None, INPUTS, LOCKED)


def test_a_text_may_have_several_and_most_have_none(tmp_path):
    found = read(tmp_path, (INPUTS[3], "one"), (INPUTS[3], "two"), (INPUTS[5], "three"))
    assert found == [(INPUTS[3], "one"), (INPUTS[3], "two"), (INPUTS[5], "three")]


def test_a_text_is_found_whatever_its_case_and_blanks_and_a_pair_counts_once(tmp_path):
    found = read(tmp_path, (f" {INPUTS[3].upper()} ", "one"), (INPUTS[3], "ONE"), (INPUTS[3], "one  "))
    assert [(text, words.casefold()) for text, words in found] == [(INPUTS[3], "one")]


def test_nothing_that_tells_of_the_locked_test_is_left(tmp_path):
    found = read(tmp_path, (LOCKED[0], "what stands there"), (INPUTS[0], LOCKED[1].upper()), (INPUTS[0], "other"))
    assert found == [(INPUTS[0], "other")]


def test_a_paraphrase_that_is_a_row_by_itself_is_left_out(tmp_path):
    """It may stand in the validation part, and have another label."""
    assert read(tmp_path, (INPUTS[0], INPUTS[1]), (INPUTS[0], INPUTS[0]), (INPUTS[0], "other")) == [
        (INPUTS[0], "other")
    ]


def test_the_columns_may_stand_in_any_order_with_others(tmp_path):
    found = read(tmp_path, (1, "one", INPUTS[3]), header=("id", "paraphrase", "sentence"))
    assert found == [(INPUTS[3], "one")]


def test_the_longest_column_of_texts_is_not_that_of_paraphrases(tmp_path):
    found = read(tmp_path, ("x " * 100, INPUTS[3]), header=("paraphrase", "mine"))
    assert found == [(INPUTS[3], ("x " * 100).strip())]


def test_columns_that_may_all_be_the_texts_are_named(tmp_path):
    with pytest.raises(BadInput, match=r"may be column 'id' or 'mine'\. Name it with --text-column, or call it 'text'"):
        read(tmp_path, ("a", "one", INPUTS[3]), header=("id", "paraphrase", "mine"))


@pytest.mark.parametrize("pairs", [[("a text of nobody", "one")], [(LOCKED[0], "one")], [(INPUTS[0], INPUTS[0])]])
def test_a_file_without_any_for_what_is_trained_on_is_refused(tmp_path, pairs):
    with pytest.raises(BadInput, match=r"None of the 1 rows of .*reworded\.csv has other words for a text that is tra"):
        read(tmp_path, *pairs)


def test_a_table_without_the_column_is_refused_with_those_that_it_has(tmp_path):
    with pytest.raises(BadInput, match=r"has no column 'paraphrase'; its columns: text, other\. Name one of them"):
        read(tmp_path, (INPUTS[0], "one"), header=("text", "other"))


def test_a_table_of_paraphrases_alone_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"has no column of texts"):
        read(tmp_path, ("one",), header=("paraphrase",))


def test_an_empty_paraphrase_is_refused_with_its_row(tmp_path):
    with pytest.raises(BadInput, match=r"1 of 2 texts of .* are empty, the first in data row 2"):
        read(tmp_path, (INPUTS[0], "one"), (INPUTS[1], " "))


def test_another_language_is_refused(tmp_path, test_data):
    file = test_data / "trec" / "train.tsv"
    asked = [line.split("\t")[-1] for line in file.read_text(encoding="utf-8", errors="replace").splitlines()[1:]]
    foreign = "Wie heißt denn bloß der Fluss, welcher durch unsere Stadt fließt und dort mündet, Nummer {}?"
    path = written(tmp_path, *((text, foreign.format(at)) for at, text in enumerate(asked[:300])))
    with pytest.raises(BadInput, match="another language"):
        read_paraphrases(path, None, asked[:2000], [])


def test_the_study_s_folder_keeps_them_and_notices_other_ones(tmp_path):
    made = rows()
    keep(tmp_path, made, {SEARCH: split(made.labels, 1)}, Extra(paraphrases=[("one", "two")]))
    assert extra_of(tmp_path) == Extra(paraphrases=[["one", "two"]])
    before = digest(tmp_path)
    (tmp_path / "paraphrases.json").write_text('[["one", "three"]]')
    assert digest(tmp_path) != before
