"""A user's files become rows: which file is which part, which columns matter, and whether one can learn from them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from deepmine_auto.data.rows import PARTS, Rows, Source
from deepmine_auto.data.split import refuse_too_few
from deepmine_auto.data.table import READERS, Columns, extension, read_lines, read_table
from deepmine_auto.errors import BadInput, unknown

SPOKEN = {each: each for each in PARTS} | dict.fromkeys(("valid", "val", "dev"), "validation")
TEXT_NAMES = (
    ("text", "sentence", "question", "tweet", "content", "review", "message", "body", "utterance"),
    ("query",),  # beside a text, it is what that was found with
)
LABEL_NAMES = (("label", "labels", "class", "category", "target", "sentiment", "intent", "topic", "emotion"),)
LINES = (".txt", ".txt.gz")
SHARD = re.compile(r"(.+)-\d{5}-of-(?P<count>(?!0{5})\d{5})(\..+)")
SHARD_NAME = "{0}-{at:05}-of-{1}{2}"
"""Names of files that are one of several, such as train-00000-of-00002.parquet."""

LONGEST_TEXT = 1_000_000
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class NoSuchColumn(BadInput):
    """A file has no column of the name that was asked for."""


def read_rows(source: Source) -> Rows:
    """Read a source's files into rows of stripped texts and labels, both str, in the order train, validation, test.

    Whole floats lose their point and booleans are written as in JSON, so that a label is the same in every format.
    A file that is one of several shards stands for all of them.
    Raises BadInput if a file cannot be read, a column cannot be found, or a row lacks its text or label.
    """
    _refuse_parts(source.files)
    order = ["all"] if "all" in source.files else [part for part in PARTS if part in source.files]
    files = [(part, path) for part in order for path in _with_all_shards(source.files[part])]
    tables = [read_table(path) for _, path in files]
    columns = _find_columns(tables[0], source, files[0][1])
    inputs: list[str] = []
    labels: list[str] = []
    parts: list[str] = []
    for (part, path), table in zip(files, tables, strict=True):
        inputs += _texts(_column(table, columns.text, path), path)
        labels += _labels(_column(table, columns.label, path), path)
        parts += [part] * (len(inputs) - len(parts))
    notes = (*columns.notes, *_told_of_shards(path for _, path in files))
    return Rows(inputs, labels, parts if len(order) > 1 else None, notes)


def read_classes(source: Source) -> Rows:
    """Read rows as `read_rows` does, whose labels are classes; a note tells those that differ only in case or blanks.

    Raises BadInput, too where there is one class alone, or one has too few rows for every part.
    """
    rows = read_rows(source)
    _refuse_classes(rows.labels, rows.parts)
    return replace(rows, notes=(*rows.notes, *_twins(rows.labels)))


def read_texts(path: Path, text_column: str | None = None) -> list[str]:
    """Read the texts of one file, stripped; .txt holds one a line. Raises BadInput, too for a blank line: answers stand
    in the order of the lines."""
    if extension(path) in LINES:
        if text_column is not None:
            raise BadInput(f"{path} has lines and no columns.", "Leave out --text-column.")
        lines = read_lines(path)
        _refuse_blank(lines, path)
        return _texts(lines, path)
    table = read_table(path, also=LINES)
    return _texts(_column(table, _texts_in(table, text_column, path), path), path)


def read_loose(path: Path, text_column: str | None = None) -> list[str]:
    """Read texts as `read_texts` does where their order says nothing: blank lines of .txt are left out, and shards are
    read together."""
    return [each for shard in _with_all_shards(_first_shard(path)) for each in _loose(shard, text_column)]


def _loose(path: Path, text_column: str | None) -> list[str]:
    if extension(path) in LINES:
        return _texts([each for each in read_lines(path) if each.strip()], path)
    return read_texts(path, text_column)


def read_pairs(path: Path, column: str, text_column: str | None = None) -> list[tuple[str, str]]:
    """Read the texts of one file, each with what this column has beside it; both stripped. Shards are read together.
    Raises BadInput."""
    shards = _with_all_shards(_first_shard(path))
    return [pair for each in shards for pair in _pairs(each, column, text_column)]


def _pairs(path: Path, column: str, text_column: str | None) -> list[tuple[str, str]]:
    table = read_table(path)
    if column not in table:
        columns = ", ".join(table)
        raise BadInput(f"{path} has no column '{column}'; its columns: {columns}.", f"Name one of them '{column}'.")
    name = _texts_in({each: values for each, values in table.items() if each != column}, text_column, path)
    texts, beside = (_texts(_column(table, each, path), path) for each in (name, column))
    return list(zip(texts, beside, strict=True))


def _texts_in(table: Columns, text_column: str | None, path: Path) -> str:
    """The column of texts in a table that need not have labels: as the user named it, else of a usual name, else the
    only one of strings. None is guessed, since nobody would be told."""
    if text_column is not None and text_column not in table:
        raise _no_such(text_column, table, path)
    known = text_column or _only(_usual(TEXT_NAMES, table, but=None), "text", path)
    found = known or _only([*_strings(table, but=None)], "text", path, "call it 'text'")
    if found is None:
        raise BadInput(f"{path} has no column of texts; its columns: {', '.join(table)}.", "Name one: --text-column.")
    return found


def read_labelled(path: Path, text_column: str | None = None, label_column: str | None = None) -> Rows:
    """Read one file as `read_rows` does, but for judging: any number of rows and classes will do. Raises BadInput."""
    return read_rows(Source({"all": _first_shard(path)}, text_column, label_column))


# -- files -----------------------------------------------------------------------------------------------------------


def source_from(paths: Sequence[str], text_column: str | None = None, label_column: str | None = None) -> Source:
    """Tell the part of each path: one file is `all`; of several, or of a folder's, `train=FILE` or the name says it.

    Raises BadInput if a part is given twice or cannot be told. Files are not opened.
    """
    if len(paths) == 1 and Path(paths[0]).expanduser().is_dir():
        found = _in_folder(Path(paths[0]).expanduser())
    else:
        found = list(dict.fromkeys(_prefixed(each) for each in paths))
    if len(found) == 1:
        part, path = found[0]
        return Source({part or "all": path}, text_column, label_column)
    files: dict[str, Path] = {}
    for given, path in found:
        part = given or _part_in_name(path)
        if part is None:
            raise BadInput(f"The name of {path} does not tell its part.", f"Write it as {_forms()}.")
        if files.get(part, path) != path:
            raise BadInput(f"{files[part]} and {path} are both {part}.", f"Give one file a part, as {_forms()}.")
        files[part] = path
    return Source(files, text_column, label_column)


def _prefixed(given: str) -> tuple[str | None, Path]:
    prefix, sign, rest = given.partition("=")
    if not sign or Path(given).exists():
        return None, _first_shard(Path(given).expanduser())
    if prefix not in SPOKEN:
        raise unknown(prefix, PARTS, "part of the data", f"Write {_forms()}.")
    return SPOKEN[prefix], _first_shard(Path(rest).expanduser())


def _in_folder(folder: Path) -> list[tuple[str | None, Path]]:
    files = (each for each in sorted(folder.iterdir()) if each.is_file() and extension(each) in READERS)
    readable = list(dict.fromkeys(map(_first_shard, files)))
    if not readable and _has_folders_of_texts(folder):
        what = f"{folder} holds folders of .txt files, and no table."
        raise BadInput(what, "Give a table with a column 'text' and a column 'label', such as a csv file.")
    named = [each for each in readable if _part_in_name(each)]
    if not named and len(readable) != 1:
        names = ", ".join(each.name for each in readable) or f"no file of {', '.join(READERS)}"
        raise BadInput(
            f"{folder} holds {names}, and none is named train.",
            f"Name them train, validation and test, or write {_forms()}.",
        )
    return [(None, each) for each in named or readable]


def _has_folders_of_texts(folder: Path) -> bool:
    """Whether there are texts in its folders, or in theirs: where a class is a folder, a part may be one too."""
    return any(any(folder.glob(each)) for each in ("*/*.txt", "*/*/*.txt"))


def _first_shard(path: Path) -> Path:
    """The first of the shards of which a path is one by its name, whether it is there or not; else the path itself."""
    named = SHARD.fullmatch(path.name)
    return path.with_name(SHARD_NAME.format(*named.groups(), at=0)) if named else path


def _with_all_shards(path: Path) -> list[Path]:
    """The files that a path stands for. Raises BadInput where some of its shards are there, and not all."""
    named = SHARD.fullmatch(path.name)
    if named is None:
        return [path]
    shards = [path.with_name(SHARD_NAME.format(*named.groups(), at=at)) for at in range(int(named["count"]))]
    missing = [each for each in shards if not each.exists()]
    if 0 < len(missing) < len(shards):
        what = f"{missing[0]} is missing, one of {len(shards):,} shards."
        raise BadInput(what, "Fetch all of them, or rename a shard to read it alone.")
    return shards


def _told_of_shards(files: Iterable[Path]) -> Iterator[str]:
    for first, count in Counter(map(_first_shard, files)).items():
        if count > 1:
            yield f"{first.name} is the first of {count:,} shards, which are read together."


def _part_in_name(path: Path) -> str | None:
    """Say which part is a word of the file's name; None where there is none, or more than one."""
    words = {SPOKEN[word] for word in re.findall("[a-z]+", path.name.lower()) if word in SPOKEN}
    return words.pop() if len(words) == 1 else None


def _refuse_parts(files: Mapping[str, Path]) -> None:
    if not files:
        raise BadInput("No file of data was given.", f"Give one file, a folder, or {_forms()}.")
    for part in files:
        if part not in (*PARTS, "all"):
            raise unknown(part, (*PARTS, "all"), "part of the data")
    if "all" in files and len(files) > 1:
        raise BadInput("A file of all rows stands beside files of single parts.", "Give one or the other.")
    if not {"all", "train"} & set(files):
        raise BadInput(f"There is a file for {' and '.join(files)} and none for train.", "Add it as train=FILE.")


def _forms() -> str:
    return ", ".join(f"{part}=FILE" for part in PARTS)


# -- columns ---------------------------------------------------------------------------------------------------------


class _Found(NamedTuple):
    text: str
    label: str
    notes: list[str]


def _find_columns(table: Columns, source: Source, path: Path) -> _Found:
    """Find both columns: as the user named them, else by a usual name, else the likeliest, which a note then tells."""
    for name in (source.text_column, source.label_column):
        if name is not None and name not in table:
            raise _no_such(name, table, path)
    label = source.label_column or _only(_usual(LABEL_NAMES, table, but=source.text_column), "label", path)
    known = source.text_column or _only(_usual(TEXT_NAMES, table, but=label), "text", path)
    text = known or _longest(table, but=label)
    if text is None:
        raise BadInput(f"{path} has no column of texts; its columns: {', '.join(table)}.", "Name one: --text-column.")
    notes = [] if known else [f"The texts are column '{text}'; --text-column names another."]
    if label is None and len(table) == 2:
        label = next(each for each in table if each != text)
        notes.append(f"The labels are column '{label}'; --label-column names another.")
    if label is None:
        raise BadInput(f"{path} has no column of labels; its columns: {', '.join(table)}.", "Name one: --label-column.")
    if text == label:
        raise BadInput(f"Column '{text}' of {path} cannot be both text and label.", "Name two columns.")
    return _Found(text, label, notes)


def _usual(names: Sequence[Collection[str]], table: Columns, but: str | None) -> list[str]:
    """The columns of usual names: of the first names that there are any of."""
    found = ([each for each in table if each.lower() in some and each != but] for some in names)
    return next(filter(None, found), [])


def _only(likely: Sequence[str], what: str, path: Path, otherwise: str = "rename the others") -> str | None:
    """The only column that it may be, if any. Of several none is guessed, since nobody would be told."""
    if len(likely) > 1:
        told = f"The {what}s of {path} may be column {' or '.join(map(repr, likely))}."
        raise BadInput(told, f"Name it with --{what}-column, or {otherwise}.")
    return likely[0] if likely else None


def _no_such(name: str, table: Columns, path: Path) -> NoSuchColumn:
    told = unknown(name, table, f"column of {path}")
    return NoSuchColumn(told.what, told.remedy)


def _longest(table: Columns, but: str | None) -> str | None:
    """The column of strings whose values are longest in the mean."""
    means = {name: sum(map(len, values)) / len(values) for name, values in _strings(table, but).items()}
    return max(means, key=means.__getitem__, default=None)


def _strings(table: Columns, but: str | None) -> Columns:
    """The columns of strings, without what is missing."""
    present = {name: [each for each in values if each is not None] for name, values in table.items() if name != but}
    return {name: each for name, each in present.items() if each and all(isinstance(value, str) for value in each)}


# -- values ----------------------------------------------------------------------------------------------------------


def _column(table: Columns, name: str, path: Path) -> list[str]:
    if name not in table:
        raise _no_such(name, table, path)
    for row, value in enumerate(table[name], 1):
        if isinstance(value, (list, dict, bytes)):
            what = f"Column '{name}' of {path} holds a {type(value).__name__} in data row {row:,}."
            raise BadInput(what, "Give one text and one label a row.")
    return [_plain(value) for value in table[name]]


def _plain(value: Any) -> str:
    """Write a value as every format would; a missing one is empty, half of a surrogate pair is U+FFFD."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return LONE_SURROGATE.sub("\ufffd", str(value))


def _texts(values: Sequence[str], path: Path) -> list[str]:
    texts = [each.strip() for each in values]
    empty = [row for row, text in enumerate(texts, 1) if not text]
    if empty:
        what = f"{len(empty):,} of {len(texts):,} texts of {path} are empty, the first in data row {empty[0]:,}."
        raise BadInput(what, "Remove these rows, or name another column with --text-column.")
    row, text = max(enumerate(texts, 1), key=lambda each: len(each[1]))
    if len(text) > LONGEST_TEXT:
        what = (
            f"The text in data row {row:,} of {path} has {len(text):,} characters; at most {LONGEST_TEXT:,} are read."
        )
        raise BadInput(what, "Cut it, or remove the row.")
    return texts


def _refuse_blank(lines: Sequence[str], path: Path) -> None:
    blank = [number for number, line in enumerate(lines, 1) if not line.strip()]
    if blank:
        what = f"{len(blank):,} of {len(lines):,} lines of {path} are blank, the first is line {blank[0]:,}."
        raise BadInput(what, "Remove them: a line is a text.")


def _labels(labels: list[str], path: Path) -> list[str]:
    missing = [row for row, label in enumerate(labels, 1) if not label.strip()]
    if missing:
        what = (
            f"{len(missing):,} of {len(labels):,} rows of {path} have no label, the first is data row {missing[0]:,}."
        )
        raise BadInput(what, "Label these rows or remove them.")
    return labels


# -- classes ---------------------------------------------------------------------------------------------------------


def _refuse_classes(labels: Sequence[str], parts: Sequence[str] | None) -> None:
    if len(set(labels)) == 1:
        what = f"Every row has the label '{labels[0]}', and a classifier needs two."
        raise BadInput(what, "Add rows of another class, or name another column with --label-column.")
    refuse_too_few(labels, parts)


def _twins(labels: Iterable[str]) -> list[str]:
    """Tell which labels are equal but for case and blanks."""
    alike = defaultdict(list)
    for label in sorted(set(labels)):
        alike["".join(label.casefold().split())].append(f"'{label}'")
    told = "The labels {} differ only in case or blanks, and are different classes here."
    return [told.format(" and ".join(each)) for each in alike.values() if len(each) > 1]
