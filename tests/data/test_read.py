"""What a user gives becomes rows, or one sentence."""

import csv
import gzip
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from deepmine_auto.data.read import read_classes, read_loose, read_pairs, read_rows, read_texts, source_from
from deepmine_auto.data.rows import Rows, Source
from deepmine_auto.errors import BadInput

GOOD = "text,label\n" + "".join(f"a{i},x\nb{i},y\n" for i in range(3))


def rows_of(path: Path, **columns: str) -> Rows:
    return read_classes(source_from([str(path)], **columns))


def sizes_of(rows: Rows) -> list[int]:
    assert rows.parts is not None
    return [rows.parts.count(part) for part in ("train", "validation", "test")]


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# -- formats -----------------------------------------------------------------------------------------------------------

VISIBLE = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(lambda each: each == each.strip())
SPOKEN = st.lists(VISIBLE.filter(bool), min_size=6, max_size=12)
WRITERS = {
    ".csv": lambda frame, path: frame.to_csv(path, index=False),
    ".csv.gz": lambda frame, path: frame.to_csv(path, index=False),
    ".tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    ".jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True, force_ascii=False),
    ".jsonl.gz": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    ".json": lambda frame, path: frame.to_json(path, orient="records"),
    ".parquet": lambda frame, path: frame.to_parquet(path),
}


@pytest.mark.parametrize("suffix", WRITERS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(texts=SPOKEN)
def test_what_pandas_wrote_is_read_back(suffix: str, texts: list[str], tmp_path: Path) -> None:
    labels = ["ham" if i % 2 else "spam" for i in range(len(texts))]
    path = tmp_path / f"rows{suffix}"
    WRITERS[suffix](pd.DataFrame({"text": texts, "label": labels}), path)
    rows = rows_of(path)
    assert (rows.inputs, rows.labels, rows.parts) == (texts, labels, None)


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_quoted_text_may_hold_line_feeds_delimiters_and_quotes(suffix: str, tmp_path: Path) -> None:
    texts = ['one\r\ntwo, "three"', "\u2028 a\tb", *"cdef"]
    WRITERS[suffix](pd.DataFrame({"text": texts, "label": list("xyxyxy")}), tmp_path / f"rows{suffix}")
    assert rows_of(tmp_path / f"rows{suffix}").inputs == [each.strip() for each in texts]


def test_stray_quotes_of_a_tsv_are_characters(tmp_path: Path) -> None:
    texts = ['"Who said this', 'no" end', '"Go" she said', 'an inch: 1"', "e", "f"]
    lines = [f"{text}\t{label}" for text, label in zip(texts, "xyxyxy", strict=True)]
    assert rows_of(written(tmp_path / "rows.tsv", "\n".join(["text\tlabel", *lines]))).inputs == texts


@pytest.mark.parametrize("line", ['"Go" she said\tb\tx', '"1\tb"\tx'])
def test_quotes_of_a_tsv_that_are_not_well_formed_stay(line: str, tmp_path: Path) -> None:
    lines = ["id\ttext\tlabel", line, *(f"{i}\ta{i}\t{'yx'[i % 2]}" for i in range(6))]
    column = "text" if "said" not in line else "id"
    rows = rows_of(written(tmp_path / "rows.tsv", "\n".join(lines)), text_column=column)
    assert rows.inputs[0] == line.split("\t")[column == "text"]


def test_quotes_that_would_join_whole_lines_of_a_tsv_are_characters(tmp_path: Path) -> None:
    lines = ["text\tlabel", '"a\tx', 'b"\ty', "c\tx", "d\ty", "e\tx", "f\ty"]
    assert rows_of(written(tmp_path / "rows.tsv", "\n".join(lines))).inputs[:2] == ['"a', 'b"']


def test_a_json_file_may_hold_an_object_a_line(tmp_path: Path) -> None:
    WRITERS[".jsonl"](pd.DataFrame({"text": list("abcdef"), "label": list("xyxyxy")}), tmp_path / "rows.json")
    assert rows_of(tmp_path / "rows.json").inputs == list("abcdef")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([1, 2], ["1", "2"]),
        ([0.5, 1.5], ["0.5", "1.5"]),
        ([True, False], ["true", "false"]),
        (["1.0", " NA"], ["1.0", " NA"]),
    ],
)
@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json"])
def test_every_label_is_text(values: list[object], told: list[str], suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows{suffix}"
    WRITERS[suffix](pd.DataFrame({"text": list("abcdef"), "label": values * 3}), path)
    assert rows_of(path).labels == told * 3


def test_a_whole_float_is_the_integer(tmp_path: Path) -> None:
    labels = [1.0, 0.0] * 3
    pd.DataFrame({"text": list("abcdef"), "label": labels}).to_parquet(tmp_path / "rows.parquet")
    lines = [json.dumps({"text": text, "label": label}) for text, label in zip("abcdef", labels, strict=True)]
    assert rows_of(tmp_path / "rows.parquet").labels == ["1", "0"] * 3
    assert rows_of(written(tmp_path / "rows.jsonl", "\n".join(lines))).labels == ["1", "0"] * 3


def test_a_byte_order_mark_and_blank_lines_are_no_data(tmp_path: Path) -> None:
    rows = rows_of(written(tmp_path / "rows.csv", b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n\r\n").encode()))
    assert rows.inputs == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_texts_are_stripped_and_half_a_surrogate_pair_is_replaced(tmp_path: Path) -> None:
    records = [{"text": f" \ud83d{i} ", "label": "xy"[i % 2]} for i in range(6)]
    rows = rows_of(written(tmp_path / "rows.jsonl", "\n".join(map(json.dumps, records))))
    assert rows.inputs[0] == "\ufffd0"


def test_a_text_of_a_million_characters_is_read(tmp_path: Path) -> None:
    rows = rows_of(written(tmp_path / "rows.csv", GOOD + "z" * 1_000_000 + ",x\n"))
    assert len(rows.inputs[-1]) == 1_000_000


def test_nested_columns_of_parquet_are_left_out(tmp_path: Path) -> None:
    frame = pd.DataFrame({"said": list("abcdef"), "vector": [[1.0]] * 6, "mood": list("xyxyxy")})
    frame.to_parquet(tmp_path / "rows.parquet")
    assert rows_of(tmp_path / "rows.parquet").labels == list("xyxyxy")


# -- columns -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "named", "noted"),
    [
        ("Text,LABEL", {}, []),
        ("tweet,sentiment", {}, []),
        ("said,mood", {"text_column": "said", "label_column": "mood"}, []),
        ("said,mood", {"text_column": "said"}, ["The labels are column 'mood'"]),
        ("said,mood", {}, ["The texts are column 'said'", "The labels are column 'mood'"]),
        ("label,intent", {"text_column": "label"}, []),
        ("said,text", {"label_column": "text"}, ["The texts are column 'said'"]),
        ("target,text", {"text_column": "target", "label_column": "text"}, []),
    ],
)
def test_columns_are_found_by_wish_by_name_or_by_length(
    header: str, named: dict[str, str], noted: list[str], tmp_path: Path
) -> None:
    lines = [f"a long text {i},{'xy'[i % 2]}" for i in range(6)]
    rows = rows_of(written(tmp_path / "rows.csv", "\n".join([header, *lines])), **named)
    assert rows.inputs[0] == "a long text 0"
    assert rows.labels == list("xyxyxy")
    assert [note.partition(";")[0] for note in rows.notes] == noted


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("text,category,sentiment", r"The labels of .*rows\.csv may be column 'category' or 'sentiment'\. Name"),
        ("text,Label,label", r"The labels of .* may be column 'Label' or 'label'\. Name it with --label-column, or"),
        ("tweet,text,label", r"The texts of .* may be column 'tweet' or 'text'\. Name it with --text-column, or"),
    ],
)
def test_which_of_several_usual_names_is_meant_is_asked_and_not_guessed(header: str, told: str, tmp_path: Path) -> None:
    path = written(tmp_path / "rows.csv", "\n".join([header, *(f"a{i},b{i},{'xy'[i % 2]}" for i in range(6))]))
    with pytest.raises(BadInput, match=told):
        rows_of(path)
    first, _, last = header.split(",")
    assert rows_of(path, text_column=first, label_column=last).labels == list("xyxyxy")


def test_a_query_beside_a_text_is_what_that_was_found_with(tmp_path: Path) -> None:
    lines = [f"none,a{i},{'xy'[i % 2]}" for i in range(6)]
    assert rows_of(written(tmp_path / "rows.csv", "\n".join(["query,text,label", *lines]))).inputs[0] == "a0"


def test_a_column_of_numbers_is_no_column_of_texts(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": range(10**9, 10**9 + 6), "said": list("abcdef"), "label": list("xyxyxy")})
    frame.to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    assert rows_of(tmp_path / "rows.jsonl").inputs == list("abcdef")


def test_labels_that_differ_only_in_case_or_blanks_are_noted_and_kept(tmp_path: Path) -> None:
    lines = [f"{label}{i},{label}" for label in ("Spam", "spam ", "ham") for i in range(3)]
    rows = rows_of(written(tmp_path / "rows.csv", "\n".join(["text,label", *lines])))
    assert set(rows.labels) == {"Spam", "spam ", "ham"}
    assert rows.notes == (
        "The labels 'Spam' and 'spam ' differ only in case or blanks, and are different classes here.",
    )


# -- parts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        (["rows.csv"], {"all": "rows.csv"}),
        (["test.csv"], {"all": "test.csv"}),
        (["train=a.csv"], {"train": "a.csv"}),
        (["train=a.csv", "dev=b.csv", "test=c.csv"], {"train": "a.csv", "validation": "b.csv", "test": "c.csv"}),
        (["trec_TEST.tsv", "trec_train.tsv"], {"test": "trec_TEST.tsv", "train": "trec_train.tsv"}),
        (["val.jsonl.gz", "train-2.jsonl.gz"], {"validation": "val.jsonl.gz", "train": "train-2.jsonl.gz"}),
        ([], {}),
    ],
)
def test_parts_are_told_by_prefix_or_by_name(given: list[str], parts: dict[str, str]) -> None:
    assert {part: str(path) for part, path in source_from(given).files.items()} == parts


def test_a_folder_is_its_files(tmp_path: Path) -> None:
    written(tmp_path / "README.md", "no data")
    train, test = written(tmp_path / "train.csv", GOOD), written(tmp_path / "test.csv", "text,label\nc,x\n")
    assert source_from([str(tmp_path)]).files == {"train": train, "test": test}
    (tmp_path / "dev.csv").mkdir()
    test.unlink()
    assert source_from([str(tmp_path)]).files == {"all": train}


def sharded(folder: Path, name: str) -> list[str]:
    """Write two shards of three rows each."""
    contents = ("text,label\na,x\nb,y\nc,x\n", "label,text\ny,d\nx,e\ny,f\n")
    paths = [folder / f"{name}-{at:05}-of-00002.csv" for at in range(2)]
    return [str(written(*each)) for each in zip(paths, contents, strict=True)]


@pytest.mark.parametrize("name", ["train", "moods"])
def test_shards_are_read_together_in_their_order_whichever_of_them_are_given(name: str, tmp_path: Path) -> None:
    first, second = sharded(tmp_path, name)
    for paths in ([str(tmp_path)], [second, first], [second], [f"train={second}", f"train={first}"]):
        rows = read_rows(source_from(paths))
        assert (rows.inputs, rows.labels, rows.parts) == (list("abcdef"), list("xyxyxy"), None)
        assert rows.notes == (f"{name}-00000-of-00002.csv is the first of 2 shards, which are read together.",)


@pytest.mark.parametrize("given", [0, 1])
def test_shards_of_what_stands_beside_the_rows_are_read_together_too(given: int, tmp_path: Path) -> None:
    path = Path(sharded(tmp_path, "more")[given])
    assert read_loose(path) == list("abcdef")
    assert read_pairs(path, "label", "text") == list(zip("abcdef", "xyxyxy", strict=True))


def test_a_part_may_have_shards_beside_one_that_has_none(tmp_path: Path) -> None:
    sharded(tmp_path, "train")
    written(tmp_path / "test-00000-of-00001.csv", "text,label\ng,x\n")
    rows = read_rows(source_from([str(tmp_path)]))
    assert (rows.inputs, sizes_of(rows)) == (list("abcdefg"), [6, 0, 1])
    assert len(rows.notes) == 1


@pytest.mark.parametrize("lost", [0, 1])
def test_a_shard_that_is_missing_is_named(lost: int, tmp_path: Path) -> None:
    shards = sharded(tmp_path, "train")
    Path(shards[lost]).unlink()
    for path in (str(tmp_path), shards[1 - lost]):
        with pytest.raises(BadInput, match=rf"train-0000{lost}-of-00002\.csv is missing, one of 2 shards\. Fetch all"):
            read_rows(source_from([path]))


def test_shards_of_which_none_is_there_are_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"train-00000-of-00002\.csv does not exist\. Give the path of a file"):
        read_rows(source_from([str(tmp_path / "train-00001-of-00002.csv")]))


def test_rows_come_in_the_order_of_their_parts(tmp_path: Path) -> None:
    test, train = written(tmp_path / "test.csv", "text,label\nc,x\n"), written(tmp_path / "train.csv", GOOD)
    rows = read_rows(source_from([str(test), str(train)]))
    assert rows.inputs[0] == "a0"
    assert rows.parts == ["train"] * 6 + ["test"]


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    train = written(tmp_path / "train.csv", GOOD)
    for path in ("~", "~/train.csv", "train=~/train.csv"):
        assert list(source_from([path]).files.values()) == [train]


def test_a_file_name_may_hold_an_equals_sign(tmp_path: Path) -> None:
    assert len(rows_of(written(tmp_path / "a=b.csv", GOOD))) == 6


# -- bad input ---------------------------------------------------------------------------------------------------------

BAD_FILES = {
    "empty": ("rows.csv", "", r"rows.csv is empty. Give a file with a row for each text"),
    "blank": ("rows.jsonl", "\ufeff\n \n", r"rows.jsonl is empty"),
    "header only": ("rows.csv", "text,label\n", r"rows.csv has no row of data"),
    "no record": ("rows.json", "[]", r"rows.json has no row of data"),
    "binary": ("rows.csv", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", r"rows.csv is a binary file. Save it as text"),
    "latin": ("rows.csv", GOOD.encode() + b"caf\xe9,x\n", r"not UTF-8: byte 0xe9 at offset 44. Convert it: `iconv -f"),
    "utf-16": ("rows.csv", GOOD.encode("utf-16"), r"is UTF-16. Convert it: `iconv -f UTF-16 -t UTF-8 .*rows_utf8.csv`"),
    "bare utf-16": ("rows.csv", GOOD.encode("utf-16-be"), r"rows.csv is UTF-16"),
    "extension": (
        "rows.xlsx",
        "PK",
        r"rows.xlsx has an extension that is not read. These are: .csv, .tsv, .jsonl, .json",
    ),
    "packed parquet": ("rows.parquet.gz", "PAR1", r"an extension that is not read. .*.json.gz, .parquet\."),
    "no label column": (
        "rows.csv",
        "id,text,mood\n1,a,x\n",
        r"no column of labels; its .* id, text, mood. .*--label-column",
    ),
    "no text column": (
        "rows.csv",
        "label\nx\n",
        r"rows.csv has no column of texts; its columns: label. .*--text-column",
    ),
    "semicolons": (
        "rows.csv",
        "text;label\na;x\n",
        r"The columns of .*rows.csv are separated by ';'\. Save it with commas",
    ),
    "quoted semicolons": (
        "rows.csv",
        'text;label\n"a; b";x\n',
        r"The columns of .*rows.csv are separated by ';'\. Save it with commas",
    ),
    "tabs": ("rows.csv", "text\tlabel\na\tx\n", r"The columns of .*rows.csv are separated by tabs\. Give it .* \.tsv"),
    "quoted tabs": ("rows.csv", '\n"text"\t"label"\n"a"\t"x"\n', r"The columns of .*rows.csv are separated by tabs"),
    "blank in a name": ("my rows.csv", GOOD.encode("utf-16"), r"-t UTF-8 '.*my rows.csv' > '.*my rows_utf8.csv'`"),
    "twice": ("rows.csv", "text,label,text\na,x,b\n", r"rows.csv has 2 columns named 'text'. Rename or remove"),
    "ragged": (
        "rows.csv",
        'text,label\n"a\nb",x\nc,d,y\n',
        r"The header of .*rows.csv names 2 columns, and line 4 has 3. Put",
    ),
    "short line": ("rows.tsv", "text\tlabel\na\tx\nb\n", r"rows.tsv names 2 columns, and line 3 has 1"),
    "open quote": ("rows.csv", 'text,label\na,x\n"b,y\nc,x\n', r"Line 3 of .*rows.csv has a quote that is not closed"),
    "jsonl": (
        "rows.jsonl",
        '{"text": "a", "label": 1}\n\n{"text": \n',
        r"Line 3 of .*rows.jsonl is not a JSON object. Write",
    ),
    "jsonl list": ("rows.jsonl", '["a", "x"]\n', r"Line 1 of .*rows.jsonl is not a JSON object"),
    "deep": ("rows.jsonl", "[" * 100_000, r"Line 1 of .*rows.jsonl is not a JSON object"),
    "json": (
        "rows.json",
        '[\n{"text" "a"}]',
        r"rows.json is not JSON: Expecting ':' delimiter in line 2. Mend that line",
    ),
    "json lines": ("rows.json", '{"text": "a", "label": 1}\n{"text": \n', r"Line 2 of .*rows.json is not a JSON"),
    "json object": ("rows.json", '{"text": "a"}', r"rows.json is not a list of JSON objects. Write \["),
    "deep json": ("rows.json", "[" * 100_000, r"rows.json is not a list of JSON objects"),
    "nested": (
        "rows.jsonl",
        '{"text": "a", "label": ["x"]}\n',
        r"Column 'label' of .* holds a list in data row 1. Give one",
    ),
    "parquet": ("rows.parquet", "PAR1 no", r"rows.parquet is not a parquet file that can be read: .*. Write it again"),
    "cut gzip": (
        "rows.csv.gz",
        gzip.compress(GOOD.encode())[:-9],
        r"rows.csv.gz cannot be read: Compressed file ended",
    ),
    "no gzip": ("rows.csv.gz", GOOD, r"rows.csv.gz cannot be read: Not a gzipped file"),
    "broken gzip": (
        "rows.csv.gz",
        gzip.compress(GOOD.encode())[:10] + b"\xff" * 40,
        r"rows.csv.gz cannot be read: Error -3",
    ),
    "packed latin": (
        "rows.csv.gz",
        gzip.compress(b"\xe9"),
        r"Convert it \(unpacked\): .* [^ ]*rows.csv > [^ ]*rows_utf8.csv`",
    ),
    "one class": ("rows.csv", "text,label\na,x\nb,x\nc,x\n", r"Every row has the label 'x', and .* two. Add rows"),
    "rare": (
        "rows.csv",
        GOOD + "c,z\nd,z\n",
        r"'z' has 2 rows, and each of train, validation, test .* merge it .* or drop it",
    ),
    "many rare": ("rows.csv", GOOD + "c,z\nd,w\n", r"'z' has 1 row \(one of 2 such classes\)"),
    "empty texts": ("rows.csv", GOOD + " ,x\n,y\n", r"2 of 8 texts of .* are empty, the first in data row 7. Remove"),
    "null text": ("rows.jsonl", '{"text": null, "label": 1}\n', r"1 of 1 texts of .* are empty"),
    "long text": (
        "rows.csv",
        GOOD + "z" * 1_000_001 + ",x\n",
        r"data row 7 of .* has 1,000,001 characters; at most 1,000,000",
    ),
    "no label": (
        "rows.csv",
        GOOD + "c,\n",
        r"1 of 7 rows of .* have no label, the first is data row 7. Label these rows",
    ),
    "NaN label": ("rows.jsonl", '{"text": "a", "label": NaN}\n', r"1 of 1 rows of .* have no label"),
    "missing key": (
        "rows.jsonl",
        '{"text": "a", "label": 1}\n{"text": "b"}\n',
        r"have no label, the first is data row 2",
    ),
}


@pytest.mark.parametrize(("name", "content", "told"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_bad_file_is_one_sentence_with_its_remedy(name: str, content: str | bytes, told: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=told) as raised:
        rows_of(written(tmp_path / name, content))
    assert raised.value.remedy
    assert "\n" not in str(raised.value)


BAD_ARRAYS = {
    "twice": (["text", "text"], pa.array(["a"]), r"rows.parquet has 2 columns named 'text'. Rename or remove"),
    "latin": (
        ["text", "label"],
        pa.array([b"\xe9"]).view(pa.string()),
        r"not a parquet file that can be read: 'utf-8' codec",
    ),
    "bytes": (["text", "label"], pa.array([b"a"]), r"Column 'text' of .* holds a bytes in data row 1. Give one text"),
}


@pytest.mark.parametrize(("names", "column", "told"), BAD_ARRAYS.values(), ids=BAD_ARRAYS.keys())
def test_a_bad_parquet_file_is_one_sentence(names: list[str], column: pa.Array, told: str, tmp_path: Path) -> None:
    parquet.write_table(pa.Table.from_arrays([column, column], names), tmp_path / "rows.parquet")
    with pytest.raises(BadInput, match=told):
        rows_of(tmp_path / "rows.parquet")


BAD_GIVEN = {
    "missing": (["trian.csv"], r"trian.csv does not exist. Did you mean '.*train.csv'"),
    "far from all": (["zzzz"], r"zzzz does not exist. Give the path of a file or of a folder"),
    "no folder": (["nowhere/train.csv"], r"train.csv does not exist. Give the path"),
    "twice": (
        ["train.csv", "train=test.csv"],
        r"train.csv and .*test.csv are both train. Give one file a part, as train=FILE",
    ),
    "no train": (["test=test.csv"], r"There is a file for test and none for train. Add it as train=FILE"),
    "no part": (["train.csv", "rows.csv"], r"The name of .*rows.csv does not tell its part. Write it as train=FILE"),
    "two parts": (["train.csv", "test_train.csv"], r"The name of .*test_train.csv does not tell its part"),
    "misspelt part": (["tran=train.csv", "test.csv"], r"'tran' is no part of the data. Did you mean 'train'"),
    "unseen label": (
        ["train.csv", "test.csv"],
        r"The label 'z' of test is in no row of train. Add rows of it to train, or drop",
    ),
    "other columns": (["train.csv", "val.csv"], r"'text' is no column of .*val.csv. Did you mean 'texts'"),
    "folder as part": (["train=.", "test.csv"], r"has an extension that is not read"),
    "nothing": ([], r"No file of data was given. Give one file, a folder, or train=FILE"),
}


@pytest.mark.parametrize(("given", "told"), BAD_GIVEN.values(), ids=BAD_GIVEN.keys())
def test_bad_paths_are_one_sentence_with_their_remedy(
    given: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "train.csv", GOOD)
    written(tmp_path / "test.csv", "text,label\nc,z\n")
    written(tmp_path / "val.csv", "texts,label\nc,x\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=told) as raised:
        read_classes(source_from(given))
    assert raised.value.remedy


def test_a_folder_that_tells_no_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"holds no file of .csv.* and none is named train. Name them train, validation"):
        source_from([str(tmp_path)])
    written(tmp_path / "a.csv", GOOD)
    written(tmp_path / "b.csv", GOOD)
    with pytest.raises(BadInput, match=r"holds a.csv, b.csv, and none is named train"):
        source_from([str(tmp_path)])


@pytest.mark.parametrize("place", ["pos", "train/pos"])
def test_a_folder_of_folders_of_texts_is_refused_with_what_is_read_instead(place: str, tmp_path: Path) -> None:
    (tmp_path / place).mkdir(parents=True)
    written(tmp_path / place / "1.txt", "so good")
    with pytest.raises(BadInput, match=r"holds folders of \.txt files, and no table\. Give a table with a column"):
        source_from([str(tmp_path)])


def test_parts_that_no_one_knows_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.csv", GOOD)
    with pytest.raises(BadInput, match=r"'tset' is no part of the data. Did you mean 'test'"):
        read_rows(Source({"train": path, "tset": path}))
    with pytest.raises(BadInput, match=r"all rows stands beside files of single parts. Give one or the other"):
        read_rows(Source({"all": path, "test": path}))


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ({"text_column": "txt"}, r"'txt' is no column of .*rows.csv. Did you mean 'text'"),
        ({"label_column": "labels"}, r"'labels' is no column of .*rows.csv. Did you mean 'label'"),
        ({"text_column": "text", "label_column": "text"}, r"Column 'text' of .* cannot be both text and label"),
    ],
)
def test_a_named_column_must_be_there(named: dict[str, str], told: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=told):
        rows_of(written(tmp_path / "rows.csv", GOOD), **named)


def test_a_class_of_one_row_will_do_where_nothing_is_cut_from_train(tmp_path: Path) -> None:
    given = [f"{part}={written(tmp_path / part, '')}.csv" for part in ("train", "validation", "test")]
    for each in given:
        written(Path(each.partition("=")[2]), f"text,label\n{each[:3]}a,x\n{each[:3]}b,y\n")
    assert len(read_classes(source_from(given))) == 6


# -- texts without labels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n \n"])
def test_a_line_is_what_stands_before_a_line_feed_and_nothing_else_ends_it(end: str, tmp_path: Path) -> None:
    lines = ["one\u2028text", "a\x0bb\x0cc\x1cd\x1de\x1ef", "a\x85b", "one\rtext"]
    assert read_texts(written(tmp_path / "more.txt", "\r\n".join(lines) + end)) == lines


@pytest.mark.parametrize(("text", "first"), [("\na\nb\n", 1), ("a\n \t\nb", 2), ("a\nb\n\x0c\nc\n\n", 3)])
def test_a_blank_line_between_texts_is_refused_since_answers_would_slip(text: str, first: int, tmp_path: Path) -> None:
    told = rf"1 of [34] lines of .*more\.txt are blank, the first is line {first}\. Remove them"
    with pytest.raises(BadInput, match=told):
        read_texts(written(tmp_path / "more.txt", text))


def test_the_only_column_of_strings_is_that_of_the_texts(tmp_path: Path) -> None:
    lines = [json.dumps({"id": at, "said": text}) for at, text in enumerate("ab")]
    assert read_texts(written(tmp_path / "more.jsonl", "\n".join(lines))) == ["a", "b"]


def test_which_of_two_columns_holds_the_texts_is_asked_and_not_guessed(tmp_path: Path) -> None:
    path = written(tmp_path / "more.csv", "said,remark\na,a very long remark\n")
    with pytest.raises(BadInput, match=r"may be column 'said' or 'remark'\. Name it with --text-column, or"):
        read_texts(path)
    assert read_texts(path, "said") == ["a"]


def test_of_two_usual_names_too_it_is_asked_which_holds_the_texts(tmp_path: Path) -> None:
    path = written(tmp_path / "more.csv", "review,text\na,b\n")
    with pytest.raises(BadInput, match=r"may be column 'review' or 'text'\. Name it with --text-column, or rename the"):
        read_texts(path)
    assert read_texts(path, "review") == ["a"]


# -- surroundings ------------------------------------------------------------------------------------------------------


def test_the_room_loads_nothing_heavy() -> None:
    names = "read, split, fingerprint, table"
    heavy = "{'torch', 'pandas', 'pyarrow', 'sklearn', 'numpy', 'transformers', 'ray'}"
    code = f"import sys\nfrom deepmine_auto.data import {names}\nprint(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_reading_a_long_text_leaves_the_limit_of_csv_as_it_was(tmp_path: Path) -> None:
    before = csv.field_size_limit(12_345)
    try:
        rows_of(written(tmp_path / "rows.csv", GOOD))
    finally:
        after = csv.field_size_limit(before)
    assert after == 12_345


# -- real data ---------------------------------------------------------------------------------------------------------


def test_trec_is_read_whole(test_data: Path) -> None:
    paths = [str(test_data / "trec" / name) for name in ("train.tsv", "test.tsv")]
    rows = read_rows(source_from(paths, label_column="coarse"))
    assert sizes_of(rows) == [5452, 0, 500]
    assert set(rows.labels) == {"ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"}
    with pytest.raises(BadInput, match="no column of labels; its columns: coarse, fine, text"):
        read_rows(source_from(paths))


def test_spamassassin_is_read_packed_once_its_empty_mails_are_gone(test_data: Path, tmp_path: Path) -> None:
    packed = test_data / "spamassassin" / "emails.jsonl.gz"
    with pytest.raises(BadInput, match=r"19 of 6,046 texts of .* are empty, the first in data row 4,289"):
        rows_of(packed)
    lines = [line for line in gzip.decompress(packed.read_bytes()).splitlines() if json.loads(line)["body"].strip()]
    rows = rows_of(written(tmp_path / "emails.jsonl.gz", gzip.compress(b"\n".join(lines))))
    assert len(rows) == 6027
    assert set(rows.labels) == {"0", "1"}


def test_clinc150_is_read_from_a_list_of_objects(test_data: Path, tmp_path: Path) -> None:
    with gzip.open(test_data / "clinc150" / "data_full.json.gz") as opened:
        held = json.load(opened)
    for part in ("train", "val", "test"):
        records = [{"query": text, "intent": intent} for text, intent in held[part] + held[f"oos_{part}"]]
        (tmp_path / f"{part}.json").write_text(json.dumps(records))
    rows = rows_of(tmp_path)
    assert sizes_of(rows) == [15100, 3100, 5500]
    assert len(set(rows.labels)) == 151


def test_snips_is_read_from_a_folder(test_data: Path, tmp_path: Path) -> None:
    for part in ("train", "valid", "test"):
        texts, labels = (
            (test_data / "snips_slu" / f"{part}.{kind}").read_text().splitlines() for kind in ("seq.in", "label")
        )
        pd.DataFrame({"utterance": texts, "intent": labels}).to_parquet(tmp_path / f"{part}.parquet")
    rows = rows_of(tmp_path)
    assert sizes_of(rows) == [13084, 700, 700]
    assert len(set(rows.labels)) == 7


@pytest.mark.parametrize("suffix", WRITERS)
def test_odd_characters_of_real_posts_survive_every_format(suffix: str, test_data: Path, tmp_path: Path) -> None:
    sentences = (test_data / "wnut17" / "test.conll").read_text().split("\n\n")
    texts = [" ".join(line.split("\t")[0] for line in each.splitlines()).strip() for each in sentences]
    texts = [each for each in texts if each]
    labels = ["long" if len(each) > 80 else "short" for each in texts]
    WRITERS[suffix](pd.DataFrame({"text": texts, "label": labels}), tmp_path / f"rows{suffix}")
    assert rows_of(tmp_path / f"rows{suffix}").inputs == texts


def test_a_column_of_what_has_lines_alone_is_refused(tmp_path):
    (tmp_path / "x.txt").write_text("so good\n")
    with pytest.raises(BadInput, match=r"x\.txt has lines and no columns\. Leave out --text-column"):
        read_texts(tmp_path / "x.txt", "review")
