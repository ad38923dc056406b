"""What does not pay on this device, or does not fit, is left out with a sentence."""

import json
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

from deepmine_auto import Cost
from deepmine_auto.planning import paying
from deepmine_auto.planning.paying import Pace, Softmax, known_paces, reasons


@dataclass(frozen=True, kw_only=True)
class Saver(Softmax):
    """Cheaper on long inputs, and nothing else."""

    name: ClassVar[str] = "saver"
    caps: ClassVar = replace(Softmax.caps, saves=True)

    def cost(self, shape, length):
        return Cost(100.0 * length, 1e6 * length)


@dataclass(frozen=True, kw_only=True)
class Other(Softmax):
    """As dear as can be, but for a reason of its own."""

    name: ClassVar[str] = "other"


@dataclass(frozen=True, kw_only=True)
class Costless(Softmax):
    """Cannot say what it costs."""

    name: ClassVar[str] = "costless"

    def cost(self, shape, length):
        raise RuntimeError("no luck")


@dataclass(frozen=True, kw_only=True)
class Unbuildable(Saver):
    """Cannot be built, so that nothing can be measured."""

    name: ClassVar[str] = "unbuildable"

    def build(self, shape):
        raise RuntimeError("no luck")


PACES = {"softmax": Pace(1e-9, 0.0), "saver": Pace(1e-6, 0.0), "other": Pace(1.0, 1.0)}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "deepmine-auto"


@pytest.fixture
def told(monkeypatch):
    monkeypatch.setattr(paying, "known_paces", lambda variants, device: {name: PACES[name] for name in variants})


@pytest.mark.usefixtures("told")
def test_what_only_saves_time_is_left_out_where_it_takes_more():
    # softmax takes 256 L^2 ns, the saver 100 L us: they meet at about 390 tokens
    said = "saver takes 3.9 times as long as softmax at 100 tokens, and only saves time"
    assert reasons({"saver": Saver, "other": Other}, 100, 100) == [said]
    assert reasons({"saver": Saver, "other": Other}, 1000, 1000) == []


@pytest.mark.usefixtures("told")
def test_what_does_not_fit_is_left_out(monkeypatch):
    monkeypatch.setattr(paying, "_memory", lambda device: 16e9)
    said = "saver would take 10.0 GB for one row of 10000 tokens"
    assert reasons({"saver": Saver}, 1000, 10_000) == [said]
    assert reasons({"saver": Saver}, 1000, 8_000) == []


@pytest.mark.usefixtures("cache")
def test_what_raises_where_it_is_looked_at_is_left_out_alone():
    found = reasons({"costless": Costless, "unbuildable": Unbuildable, "other": Other}, 100, 100)
    assert found == [f"{name} cannot be measured: RuntimeError: no luck" for name in ("costless", "unbuildable")]


def test_a_pace_is_measured_once_and_kept(cache, monkeypatch):
    times = []
    monkeypatch.setattr(paying, "measured", lambda variant: times.append(variant.name) or Pace(1.0, 2.0))
    for _ in range(2):
        assert known_paces({"saver": Saver}, "a device") == {"saver": Pace(1.0, 2.0)}
    assert times == ["saver"]
    known_paces({"saver": Saver}, "another device")
    assert times == ["saver", "saver"]
    assert json.loads((cache / "paces.json").read_text()).keys() == {"a device", "another device"}


def test_a_variant_whose_code_was_changed_is_measured_again(cache, monkeypatch):
    times = []
    monkeypatch.setattr(paying, "measured", lambda variant: times.append(variant.name) or Pace(1.0, float(len(times))))
    for code, pace in (("old", 1.0), ("old", 1.0), ("new", 2.0)):
        monkeypatch.setattr(paying, "hash_of", lambda module, code=code: code)
        assert known_paces({"saver": Saver}, "a device") == {"saver": Pace(1.0, pace)}
    assert times == ["saver", "saver"]


def test_a_pace_gives_back_what_was_measured(monkeypatch):
    variant, seconds = Softmax(), {64: 0.001, 1024: 0.1}
    monkeypatch.setattr(paying, "_seconds_a_row", lambda variant, length: seconds[length])
    pace = paying.measured(variant)
    assert {length: pace.seconds(variant, length) for length in seconds} == pytest.approx(seconds)
    monkeypatch.setattr(paying, "_seconds_a_row", lambda variant, length: 1.0)
    assert min(paying.measured(variant)) >= 0.0


def test_a_real_layer_can_be_measured():
    assert 0.0 < paying.measured(Softmax()).seconds(Softmax(), 128) < 10.0
