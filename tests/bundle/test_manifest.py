"""A bundle is what was written, byte for byte, or it is refused."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmine_auto.bundle.manifest import checked
from deepmine_auto.errors import BadInput

NAMES = [
    "README.md", "config.json", "manifest.json", "model.safetensors", "prepared.json", "tokenizer.json",
    "tokenizer_config.json",
]  # fmt: skip


def test_a_bundle_holds_these_files_and_no_code():
    assert sorted(each.name for each in tiny.bundle().iterdir()) == NAMES
    assert sorted(checked(tiny.bundle())["files"]) == [each for each in NAMES if each != "manifest.json"]


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(NAMES), data=st.data())
def test_every_changed_byte_is_refused(name, data):
    original = (tiny.bundle() / name).read_bytes()
    at = data.draw(st.integers(0, len(original) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != original[at]))
    with tempfile.TemporaryDirectory() as folder:
        spoiled = tiny.copy(Path(folder)) / name
        spoiled.write_bytes(original[:at] + bytes([other]) + original[at + 1 :])
        with pytest.raises(BadInput, match=r"was changed after|cannot be read"):
            checked(spoiled.parent)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_refused(tmp_path, name):
    folder = tiny.copy(tmp_path)
    (folder / name).unlink()
    with pytest.raises(BadInput, match=f"has no (file ')?{name}"):
        checked(folder)


def test_a_file_that_nobody_vouches_for_is_refused(tmp_path):
    folder = tiny.copy(tmp_path)
    (folder / "modeling_evil.py").write_text("print()")
    with pytest.raises(BadInput, match=r"modeling_evil\.py does not belong to the bundle\. Delete it"):
        checked(folder)


def test_a_folder_inside_is_refused(tmp_path):
    folder = tiny.copy(tmp_path)
    (folder / "inner").mkdir()
    with pytest.raises(BadInput, match="is a link or a folder"):
        checked(folder)


@pytest.mark.parametrize("name", NAMES)
def test_a_link_is_refused_even_to_the_same_bytes(tmp_path, name):
    folder = tiny.copy(tmp_path)
    shutil.move(folder / name, tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", folder / name)
    with pytest.raises(BadInput, match="is a link or a folder"):
        checked(folder)


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path):
    with pytest.raises(BadInput, match=r"is no bundle: it has no manifest\.json\. Name the folder"):
        checked(tmp_path)
    with pytest.raises(BadInput, match="is no bundle"):
        checked(tmp_path / "missing")


def test_a_linked_bundle_folder_is_fine(tmp_path):
    os.symlink(tiny.bundle(), tmp_path / "latest")
    assert checked(tmp_path / "latest")["study"] == "tiny"
