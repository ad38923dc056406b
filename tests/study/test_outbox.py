"""What an outbox acknowledged is read again, whatever became of the process and the disk."""

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmine_auto.study.outbox import Entry, Outbox, left_in

ENTRIES = [Entry("report", {"seq": 1, "value": 0.1}), Entry("event", {"text": "ünbeliebt\n\0"}), Entry("tell", {})]


@pytest.fixture
def outbox(tmp_path):
    return Outbox(tmp_path, 3)


def filled(outbox, entries=ENTRIES):
    for each in entries:
        outbox.append(each)
    return outbox


def test_what_was_appended_is_read_in_order(outbox):
    assert outbox.entries() == []
    assert filled(outbox).entries() == ENTRIES
    assert outbox.entries(after=2) == ENTRIES[2:]
    assert len(outbox) == 3


def test_an_outbox_torn_at_any_byte_holds_every_entry_before_and_none_after(outbox):
    whole = filled(outbox).file.read_bytes()
    ends = [at + 1 for at, byte in enumerate(whole) if byte == ord("\n")]
    assert len(ends) == 3
    for size in range(len(whole) + 1):
        outbox.file.write_bytes(whole[:size])
        assert outbox.entries() == ENTRIES[: sum(end <= size for end in ends)], size


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_from_a_flipped_bit_on_nothing_is_believed(tmp_path_factory, at, bit):
    outbox = filled(Outbox(tmp_path_factory.mktemp("flipped"), 3))
    whole = bytearray(outbox.file.read_bytes())
    at %= len(whole)
    whole[at] ^= 1 << bit
    outbox.file.write_bytes(whole)
    assert outbox.entries() == ENTRIES[: bytes(whole[:at]).count(b"\n")]


class FullDisk:
    """Takes so many bytes more."""

    write = staticmethod(os.write)

    def __init__(self, left):
        self.left = left

    def __call__(self, handle, line):
        if not self.left:
            raise OSError(errno.ENOSPC, "No space left on device")
        part, self.left = line[: self.left], 0
        return self.write(handle, part)


@pytest.mark.parametrize("room", [0, 1, 20])
@pytest.mark.parametrize("before", [0, 2])
def test_a_disk_that_fills_up_in_the_middle_of_an_entry_costs_no_later_one(outbox, monkeypatch, room, before):
    filled(outbox, ENTRIES[:before])
    monkeypatch.setattr(os, "write", FullDisk(room))
    with pytest.raises(OSError, match="No space left"):
        outbox.append(Entry("lost", {}))
    assert outbox.entries() == ENTRIES[:before]
    monkeypatch.undo()
    assert filled(outbox, ENTRIES[before:]).entries() == ENTRIES


def test_an_entry_that_did_not_reach_the_disk_for_sure_is_replaced_by_the_next(outbox, monkeypatch):
    def broken(handle):
        raise OSError(errno.EIO, "Input/output error")

    filled(outbox, ENTRIES[:2])
    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output error"):
        outbox.append(Entry("unsure", {}))
    monkeypatch.undo()
    outbox.append(ENTRIES[2])
    assert outbox.entries() == ENTRIES


def test_a_disk_that_takes_a_line_in_parts_gets_all_of_it(outbox, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, line: write(handle, line[:7]))
    assert filled(outbox).entries() == ENTRIES


def test_an_entry_is_on_the_disk_before_append_returns_and_the_name_of_its_file_too(outbox, monkeypatch):
    flushed = []
    fsync = os.fsync

    def noting(handle):
        flushed.append(os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noting)
    filled(outbox)
    file, folder = str(outbox.file), str(outbox.file.parent)
    assert flushed == [file, folder, file, file]


def test_a_cleared_outbox_begins_anew(outbox):
    filled(outbox).clear()
    assert not outbox.file.exists()
    assert outbox.entries() == []
    outbox.clear()
    assert filled(outbox).entries() == ENTRIES


def test_two_drivers_in_one_folder_do_not_share_an_outbox(tmp_path):
    first, second = Outbox(tmp_path, 9), Outbox(tmp_path, 10)
    first.append(ENTRIES[0])
    second.append(ENTRIES[1])
    first.append(ENTRIES[2])
    assert [(each.epoch, each.entries()) for each in left_in(tmp_path)] == [
        (9, [ENTRIES[0], ENTRIES[2]]),
        (10, [ENTRIES[1]]),
    ]


def test_what_is_put_aside_is_kept_and_waits_no_more(outbox):
    whole = filled(outbox).file.read_bytes()
    aside = outbox.put_aside()
    assert aside.read_bytes() == whole
    assert aside.name == "late-outbox-3.jsonl"
    assert left_in(outbox.file.parent) == []


def test_where_the_folder_is_gone_nothing_was_left(tmp_path):
    assert left_in(tmp_path / "gone") == []
