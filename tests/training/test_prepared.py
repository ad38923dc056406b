"""What is prepared for a split is read once by all trials of a study, and by no other study."""

import shutil

from tiny_texts import kept, rows

from deepmine_auto.data.kept import SEARCH, keep
from deepmine_auto.data.split import split
from deepmine_auto.host import the_host
from deepmine_auto.training import prepared
from deepmine_auto.training.prepared import ready


def prepared_in(folder):
    task, backbone = the_host().get("task", "text_classification"), the_host().get("backbone", "encoder")
    return ready(folder, SEARCH, task(tokens="word"), backbone())


def test_trials_of_one_study_share_what_was_read(tmp_path):
    folder = kept(tmp_path / "study")
    assert prepared_in(folder) is prepared_in(folder)


def test_another_study_in_the_folder_of_one_that_was_deleted_has_its_own_rows(tmp_path):
    folder = kept(tmp_path / "study")
    first = prepared_in(folder)
    shutil.rmtree(folder)
    folder.mkdir()
    keep(folder, rows(40), {SEARCH: split(rows(40).labels, 1)})
    second = prepared_in(folder)
    assert len(second.train) < len(first.train)
    assert len(second.train) + len(second.validation) < 40


def test_what_is_prepared_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """A folder that has its name is never made again, whatever a loss of power has left in it."""
    flushed = []
    monkeypatch.setattr(prepared, "flush", lambda path: flushed.append((path.name, named())))

    def named():
        return [each.name for each in (tmp_path / "study" / "prepared").iterdir() if each.name.startswith(SEARCH)]

    prepared_in(kept(tmp_path / "study"))
    before = {name for name, there in flushed if not [each for each in there if not each.endswith(".lock")]}
    assert {"train.safetensors", "validation.safetensors"} < before
    assert flushed[-1][0] == "prepared", "and then the folder that has the name"
