"""What a study's folder keeps is read again as it was, wherever that is."""

from deepmine_auto.data import kept
from deepmine_auto.data.rows import Extra, Rows
from deepmine_auto.data.split import Split


def test_rows_are_kept_in_utf_8_whatever_the_locale(tmp_path, monkeypatch):
    monkeypatch.setattr("io.text_encoding", lambda encoding, stacklevel=2: encoding or "latin-1")
    made = Rows(["дом", "\U0001f600", "été", "x"], ["да", "нет", "да", "нет"])
    kept.keep(tmp_path, made, {kept.SEARCH: Split([0, 1], [2], [3])}, Extra(["лес"]))
    assert kept.rows_of(tmp_path, kept.SEARCH, "train") == Rows(["дом", "\U0001f600"], ["да", "нет"])
    assert kept.rows_of(tmp_path, kept.SEARCH, "validation") == Rows(["été"], ["да"])
    assert kept.test_rows(tmp_path) == Rows(["x"], ["нет"])
    assert kept.extra_of(tmp_path).unlabelled == ["лес"]


def test_rows_that_are_in_no_part_are_not_kept(tmp_path):
    made = Rows(["a", "left out", "b", "c", "also out", "d"], ["x"] * 6)
    splits = {kept.SEARCH: Split([0, 5], [2], [3]), "rerun-0": Split([2, 0], [5], [3])}
    kept.keep(tmp_path, made, splits)
    assert kept.rows_of(tmp_path, kept.REFIT, "train").inputs == ["a", "b", "d"]
    assert kept.rows_of(tmp_path, "rerun-0", "train").inputs == ["b", "a"]
    assert kept.test_rows(tmp_path).inputs == ["c"]
    assert not [each for each in tmp_path.iterdir() if "out" in each.read_text()]


def test_what_is_kept_is_on_the_disk_before_the_study_says_so(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(kept, "flush", lambda path: flushed.append(path.name))
    kept.keep(tmp_path, Rows(["a", "b", "c"], ["x", "y", "x"]), {kept.SEARCH: Split([0], [1], [2])}, Extra(["d"]))
    assert flushed[-1] == tmp_path.name
    assert {*flushed} == {tmp_path.name, *(each.name for each in tmp_path.iterdir())}
