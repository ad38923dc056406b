"""One file, of any format that we read, as named columns of values.

The standard library's csv is used rather than pandas', which fills short lines with NaN without a word.
"""

import csv
import gzip
import io
import json
import shlex
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from deepmine_auto.errors import BadInput

Columns = dict[str, list[Any]]
Lines = list[tuple[int, list[str]]]
"""The fields of each record of a delimited file, after the number of the line that it begins on."""

LONGEST_FIELD = 2**31 - 1
QUOTES = "Put a text that holds the delimiter or a quote into double quotes, and double the quotes inside it."


def read_table(path: Path, also: Sequence[str] = ()) -> Columns:
    """Read a file into columns of equal length, at least one row; values are as the format gives them. The caller reads
    some extensions `also`, which is told where one is not read.

    Raises BadInput if the file is missing, empty, binary, not UTF-8, malformed, or of a format that we do not read.
    """
    if not path.exists():
        raise _missing(path)
    read = READERS.get(extension(path))
    if read is None:
        raise BadInput(f"{path} has an extension that is not read.", f"These are: {', '.join([*READERS, *also])}.")
    table = read(path)
    if not any(table.values()):
        raise BadInput(f"{path} has no row of data.", "Give a file with a row for each text.")
    return table


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file up to the last that is not blank. Raises BadInput as `read_table` does."""
    if not path.exists():
        raise _missing(path)
    return lines_of(_text(path).rstrip())


def lines_of(text: str) -> list[str]:
    """Cut a text where it has line feeds: `splitlines` does so at U+2028 or a form feed too, and what is answered would
    slip against what was asked."""
    return [each.removesuffix("\r") for each in text.split("\n")]


def extension(path: Path) -> str:
    """Return the extension that tells the format, such as .csv or .csv.gz."""
    inner = Path(path.stem).suffix if path.suffix.lower() == ".gz" else ""
    return f"{inner}{path.suffix}".lower()


def _missing(path: Path) -> BadInput:
    names = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
    near = get_close_matches(path.name, names, n=1)
    remedy = f"Did you mean '{path.parent / near[0]}'?" if near else "Give the path of a file or of a folder."
    return BadInput(f"{path} does not exist.", remedy)


# -- bytes to text ---------------------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    raw = _bytes(path)
    if _is_utf16(raw):
        raise BadInput(f"{path} is UTF-16.", _convert("UTF-16", path))
    if b"\0" in raw:
        raise BadInput(f"{path} is a binary file.", "Save it as text, or give it the extension of its format.")
    try:
        text = raw.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        what = f"{path} is not UTF-8: byte 0x{raw[error.start]:02x} at offset {error.start:,}."
        raise BadInput(what, _convert("WINDOWS-1252", path)) from None
    if not text.strip():
        raise BadInput(f"{path} is empty.", "Give a file with a row for each text.")
    return text


def _bytes(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if path.suffix.lower() == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        told = str(getattr(error, "strerror", None) or error).rstrip(".")
        raise BadInput(f"{path} cannot be read: {told}.", "Mend it, or give another file.") from None


def _is_utf16(raw: bytes) -> bool:
    bare = (raw[:8:2] == bytes(4)) != (raw[1:8:2] == bytes(4))  # ASCII letters, each beside a zero, without a mark
    return raw.startswith((b"\xff\xfe", b"\xfe\xff")) or bare


def _convert(encoding: str, path: Path) -> str:
    plain = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    unpacked = " (unpacked)" if plain != path else ""
    old, new = (shlex.quote(str(each)) for each in (plain, plain.with_stem(f"{plain.stem}_utf8")))
    return f"Convert it{unpacked}: `iconv -f {encoding} -t UTF-8 {old} > {new}`."


# -- text to columns -------------------------------------------------------------------------------------------------


def _csv(path: Path) -> Columns:
    text = _text(path)
    try:
        lines = list(_lines(text, delimiter=",", strict=True))
    except csv.Error as error:
        header = io.StringIO(text.lstrip("\r\n"), newline=None).readline()
        if "," not in header:  # a quote before another separator is closed too early for a comma
            _refuse_separator(header, path)
        raise BadInput(f"Line {error} of {path} has a quote that is not closed, or closed too early.", QUOTES) from None
    return _from_lines(lines, path)


def _tsv(path: Path) -> Columns:
    """Read quotes as quotes only where all of them are well-formed and none joins lines that are whole alone."""
    text = _text(path)
    plain = list(_lines(text, delimiter="\t", quoting=csv.QUOTE_NONE))
    try:
        quoted = list(_lines(text, delimiter="\t", strict=True))
    except csv.Error:
        return _from_lines(plain, path)
    well_formed = _even(quoted) and (len(quoted) == len(plain) or not _even(plain))
    return _from_lines(quoted if well_formed else plain, path)


def _lines(text: str, **dialect: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield each record with the number of its first line; csv.Error carries that number."""
    begun = 1
    before = csv.field_size_limit(LONGEST_FIELD)  # 131,072 otherwise; too long a text is told with its row, later
    try:
        reader = csv.reader(io.StringIO(text, newline=""), **dialect)
        for fields in reader:
            if fields:
                yield begun, fields
            begun = reader.line_num + 1
    except csv.Error:
        raise csv.Error(begun) from None
    finally:
        csv.field_size_limit(before)


def _even(lines: Lines) -> bool:
    return len({len(fields) for _, fields in lines}) == 1


def _from_lines(lines: Lines, path: Path) -> Columns:
    (_, header), *records = lines
    if len(header) == 1:
        _refuse_separator(header[0], path)
    _refuse_twice(header, path)
    for number, fields in records:
        if len(fields) != len(header):
            what = f"The header of {path} names {len(header)} columns, and line {number} has {len(fields)}."
            raise BadInput(what, QUOTES)
    return {name: [fields[i] for _, fields in records] for i, name in enumerate(header)}


def _refuse_separator(header: str, path: Path) -> None:
    """Say by what a header's columns are separated, where the extension says otherwise."""
    if ";" in header:
        raise BadInput(f"The columns of {path} are separated by ';'.", "Save it with commas, or as .tsv with tabs.")
    if "\t" in header.strip():
        raise BadInput(f"The columns of {path} are separated by tabs.", "Give it the extension .tsv.")


def _refuse_twice(names: Sequence[str], path: Path) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise BadInput(f"{path} has {count} columns named '{name}'.", "Rename or remove all but one.")


def _jsonl(path: Path) -> Columns:
    records = []
    for number, line in enumerate(_text(path).split("\n"), 1):
        if line.strip():
            try:
                records.append(_object(json.loads(line)))
            except (ValueError, RecursionError):
                what = f"Line {number} of {path} is not a JSON object."
                raise BadInput(what, 'Write one {"text": ..., "label": ...} a line.') from None
    return _from_records(records)


def _json(path: Path) -> Columns:
    """Read a list of objects, or an object a line: many call such a file .json too."""
    text = _text(path)
    try:
        held = json.loads(text)
        return _from_records([_object(each) for each in (held if isinstance(held, list) else [held, None])])
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            return _jsonl(path)
        raise BadInput(f"{path} is not JSON: {error.msg} in line {error.lineno}.", "Mend that line.") from None
    except (ValueError, RecursionError):
        remedy = 'Write [{"text": ..., "label": ...}, ...].'
        raise BadInput(f"{path} is not a list of JSON objects.", remedy) from None


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError
    return value


def _from_records(records: Sequence[dict[str, Any]]) -> Columns:
    names = dict.fromkeys(name for record in records for name in record)
    return {name: [record.get(name) for record in records] for name in names}


def _parquet(path: Path) -> Columns:
    """Read flat columns alone: a list or a struct is neither a text nor a label, and may be large."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        schema = parquet.read_schema(path)
        _refuse_twice(schema.names, path)
        flat = [each.name for each in schema if not pa.types.is_nested(each.type)]
        columns: Columns = parquet.read_table(path, columns=flat).to_pydict()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        told = str(error).splitlines()[0].rstrip(".")
        raise BadInput(f"{path} is not a parquet file that can be read: {told}.", "Write it again.") from None
    return columns


TEXT_READERS: dict[str, Callable[[Path], Columns]] = {".csv": _csv, ".tsv": _tsv, ".jsonl": _jsonl, ".json": _json}
READERS = TEXT_READERS | {f"{each}.gz": read for each, read in TEXT_READERS.items()} | {".parquet": _parquet}
