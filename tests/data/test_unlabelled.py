"""Texts without labels: what may not be learned from is left out, and what cannot be meant is refused."""

import gzip
import json

import pytest
from tiny_texts import rows

from deepmine_auto.data.kept import SEARCH, digest, extra_of, keep
from deepmine_auto.data.rows import Extra
from deepmine_auto.data.split import split
from deepmine_auto.data.unlabelled import read_unlabelled
from deepmine_auto.errors import BadInput


def written(file, texts):
    file.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return file


def test_a_text_file_holds_one_a_line_and_blank_lines_are_left_out(tmp_path):
    file = written(tmp_path / "more.txt", ["  one text ", "", "  ", "another, with a comma"])
    assert read_unlabelled(file, None, rows().inputs) == ["one text", "another, with a comma"]


def test_a_table_may_have_other_columns(tmp_path):
    file = written(tmp_path / "more.csv", ["id,review", "1,one text", "2,another"])
    assert read_unlabelled(file, None, rows().inputs) == ["one text", "another"]


def test_a_line_ends_at_a_line_feed_alone(tmp_path):
    file = written(tmp_path / "more.txt", ["one\u2028text", "another\x0cone"])
    assert read_unlabelled(file, None, rows().inputs) == ["one\u2028text", "another\x0cone"]


def test_columns_that_may_all_be_the_texts_are_named(tmp_path):
    file = written(tmp_path / "more.csv", ["told,remark", "one text,a very long remark"])
    with pytest.raises(BadInput, match=r"may be column 'told' or 'remark'\. Name it with --text-column, or"):
        read_unlabelled(file, None, rows().inputs)


def test_what_is_a_row_already_and_what_stands_twice_is_left_out(tmp_path):
    known = rows().inputs
    file = written(tmp_path / "more.txt", [known[0].upper(), f"  {known[1]}  ", "new", "NEW", "new  ", "newer"])
    assert sorted(each.casefold() for each in read_unlabelled(file, None, known)) == ["new", "newer"]


def test_a_file_of_rows_alone_is_refused(tmp_path):
    file = written(tmp_path / "more.txt", rows().inputs)
    with pytest.raises(BadInput, match=r"All 80 texts of .*more\.txt are rows of the data too\. Give others"):
        read_unlabelled(file, None, rows().inputs)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("more.txt", b"", r"more\.txt is empty\."),
        ("more.txt", b"\n \n", r"more\.txt is empty\."),
        ("more.txt", b"a\0b", r"more\.txt is a binary file\."),
        ("more.txt", "größer".encode("cp1252"), r"more\.txt is not UTF-8"),
        ("more.pdf", b"x", r"more\.pdf has an extension that is not read\. .*, \.parquet, \.txt, \.txt\.gz\."),
        ("more.csv", b"text\n", r"more\.csv has no row of data\."),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path, name, content, told):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(BadInput, match=told):
        read_unlabelled(file, None, rows().inputs)


def test_a_file_that_is_not_there_is_named_with_the_nearest(tmp_path):
    written(tmp_path / "more.txt", ["x"])
    with pytest.raises(BadInput, match=r"mroe\.txt does not exist\. Did you mean '.*more\.txt'"):
        read_unlabelled(tmp_path / "mroe.txt", None, rows().inputs)


# -- language ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def verses(test_data):
    """Verses of the Bible in English and in Spanish."""
    with gzip.open(test_data / "bible_en_es" / "en_es.tsv.gz", "rt", encoding="utf-8") as lines:
        pairs = [line.rstrip("\n").split("\t")[-2:] for line in lines][1:1001]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def test_another_language_is_refused_and_another_part_of_the_book_is_not(tmp_path, verses):
    english, spanish = verses
    theirs = written(tmp_path / "spanish.txt", spanish)
    with pytest.raises(BadInput, match=r"know \d+% of each other's words, and \d+% of those of .*another language\?"):
        read_unlabelled(theirs, None, english[:500])
    assert len(read_unlabelled(written(tmp_path / "more.txt", english[500:]), None, english[:500])) > 450


def test_english_of_another_kind_is_not_taken_for_another_language(tmp_path, test_data, verses):
    file = test_data / "trec" / "train.tsv"
    questions = [line.split("\t")[-1] for line in file.read_text(encoding="utf-8", errors="replace").splitlines()[1:]]
    assert read_unlabelled(written(tmp_path / "questions.txt", questions), None, verses[0])


def test_few_rows_say_nothing_of_a_language(tmp_path, verses):
    english, spanish = verses
    assert read_unlabelled(written(tmp_path / "spanish.txt", spanish), None, english[:99])


def test_rows_without_blanks_between_words_say_nothing_of_a_language(tmp_path, test_data):
    with gzip.open(test_data / "xquad" / "xquad.zh.json.gz") as file:
        articles = json.load(file)["data"]
    asked = [each["question"] for article in articles for part in article["paragraphs"] for each in part["qas"]]
    assert read_unlabelled(written(tmp_path / "more.txt", asked[300:]), None, asked[:300])


# -- kept --------------------------------------------------------------------------------------------------------------


def test_the_study_s_folder_keeps_them_and_notices_other_ones(tmp_path):
    made = rows()
    keep(tmp_path, made, {SEARCH: split(made.labels, 1)}, Extra(["one", "two"]))
    assert extra_of(tmp_path).unlabelled == ["one", "two"]
    before = digest(tmp_path)
    (tmp_path / "unlabelled.json").write_text('["one", "three"]')
    assert digest(tmp_path) != before


def test_without_any_nothing_is_kept(tmp_path):
    made = rows()
    keep(tmp_path, made, {SEARCH: split(made.labels, 1)})
    assert extra_of(tmp_path) == Extra()
    assert not (tmp_path / "unlabelled.json").exists()
