import json
import re
from collections import namedtuple

import pytest
from fakes import Desk

from deepmine_auto import diagnosis
from deepmine_auto.cli import run
from deepmine_auto.diagnosis import Finding
from deepmine_auto.host import Broken, the_host
from deepmine_auto.storage import sqlite
from deepmine_auto.storage.place import place_of
from deepmine_auto.storage.sqlite import SqliteFile

Usage = namedtuple("Usage", "total used free")


def test_a_sound_machine_has_no_fault_and_nothing_is_left_behind(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["doctor", "--json"], the_host()) == 0
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert {"python", "torch", "gpu", "cores", "memory", "disk", "storage", "ray tune", "plugins"} <= {
        each["what"] for each in findings
    }
    assert all(each["fix"] for each in findings if each["state"] != "ok")
    assert list(tmp_path.iterdir()) == []


def test_a_fault_ends_with_1_and_its_remedy(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    finding = Finding("storage", "fault", "gone", "Bring it back.")
    monkeypatch.setattr(diagnosis, "diagnose", lambda *_: iter([Finding("cores", "ok", "2"), finding]))
    assert run(["doctor"], the_host()) == 1
    shown = capsys.readouterr()
    assert "fault  storage  gone" in shown.out
    assert "storage: Bring it back." in shown.out
    assert shown.err == "There is a fault: storage. The remedy stands above.\n"


@pytest.mark.parametrize(
    ("version", "state"),
    [("3.10.9", "fault"), ("3.11.7", "warning"), ("3.11.13", "ok"), ("3.13.2", "warning"), ("3.14.0", "ok")],
)
def test_an_old_python_is_named(version, state):
    assert diagnosis.python(version).state == state


def test_a_library_below_its_floor_is_a_fault(monkeypatch):
    monkeypatch.setattr(diagnosis, "_version", {"torch": "2.9.1", "ray": "2.60.0"}.get)
    states = {each.what: each for each in diagnosis.libraries()}
    assert states["torch"] == Finding("torch", "fault", "2.9.1", "Upgrade it: pip install 'torch>=2.10'.")
    assert states["ray"].state == "ok"
    assert states["optuna"].found == "not installed"


def test_little_memory_and_one_core_are_warned_of():
    assert diagnosis.memory(2**30).state == "warning"
    assert diagnosis.memory(2**34).state == "ok"
    assert diagnosis.memory(None).state == "ok"
    assert diagnosis.cores(1).state == "warning"


def test_a_full_disk_is_warned_of(monkeypatch, tmp_path):
    monkeypatch.setattr(diagnosis.shutil, "disk_usage", lambda _: Usage(10, 10, 2**20))
    assert diagnosis.space("disk", tmp_path, 2.0, "Free some.") == Finding(
        "disk", "warning", f"0.0 GiB free at {tmp_path}", "Free some."
    )
    assert diagnosis.space("shared memory", tmp_path / "none", 1.0, "Make it.").state == "warning"


def test_a_database_that_is_damaged_is_a_fault(tmp_path):
    file = tmp_path / "studies.db"
    file.write_bytes(b"SQLite format 3\0" + b"\xff" * 4096)
    assert diagnosis.database(SqliteFile(file)).state == "fault"
    assert diagnosis.database(SqliteFile(tmp_path / "new" / "studies.db")).found.endswith("(new)")


def test_the_schema_of_a_database_is_told(place, tmp_path):
    assert re.search(r" \((PostgreSQL \d+, )?new\)$", diagnosis.database(place).found)
    Desk(tmp_path, place=place)
    assert re.search(r" \((PostgreSQL \d+, )?schema \d{4}\)$", diagnosis.database(place).found)


def test_a_server_that_cannot_be_reached_is_a_fault():
    pytest.importorskip("psycopg")
    finding = diagnosis.database(place_of("postgresql://me@127.0.0.1:1/studies"))
    assert finding.state == "fault"
    assert "postgresql://me@127.0.0.1:1/studies cannot be used: " in finding.found
    assert finding.fix == "Look whether it runs, and at host, name, user and password."


def test_a_folder_that_cannot_be_written_is_a_fault(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(sqlite.tempfile, "TemporaryFile", refuse)
    finding = diagnosis.database(SqliteFile(tmp_path / "studies.db"))
    assert finding.state == "fault"
    assert "Permission denied" in finding.found


def test_a_plugin_that_is_set_aside_is_a_warning():
    class Host:
        broken = [Broken("theirs:Own", "theirs", "ImportError: no luck", "attention")]

        def offered(self, kind):
            return {}

    finding = diagnosis.plugins(Host())
    assert finding.state == "warning"
    assert "theirs:Own: ImportError: no luck" in finding.found


def test_an_import_that_fails_is_a_fault_with_its_reason(monkeypatch):
    def fail():
        raise OSError("libcuda.so: cannot open\nmore")

    monkeypatch.setattr(diagnosis, "_import_tune", fail)
    assert diagnosis.ray().found == "libcuda.so: cannot open"
    assert diagnosis.ray().state == "fault"
