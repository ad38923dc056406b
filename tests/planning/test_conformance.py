"""A variant of somebody else that breaks its promises is not searched, unless it is trusted."""

import sys
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

from deepmine_auto import AttentionCore, Caps, DenseAttention
from deepmine_auto.contracts import Brought
from deepmine_auto.errors import BadInput, MissingExtra
from deepmine_auto.planning import conformance
from deepmine_auto.planning.searchable import admitting
from deepmine_auto.testing import checks
from deepmine_auto.testing.checks import Promise
from deepmine_plugins.attention.multi_head import MultiHead
from deepmine_plugins.backbones.encoder import Encoder


class LeaksPadding(DenseAttention):
    def weigh(self, q_BHLK, k_BGSK, mask, modifiers=()):
        return super().weigh(q_BHLK, k_BGSK, replace(mask, padding=None), modifiers)


@dataclass(frozen=True, kw_only=True)
class Leaky(AttentionCore):
    name: ClassVar[str] = "leaky"
    source: ClassVar[str] = "a test"
    caps: ClassVar[Caps] = MultiHead.caps

    def build(self, shape):
        return LeaksPadding()


THEIRS = Brought("attention", "leaky", Leaky, "theirs", "1.0", "theirs:Leaky", "a test", "hash")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_a_broken_promise_is_named_and_found_once_a_version(monkeypatch):
    assert "padding never leaks" in conformance.fault(THEIRS)
    monkeypatch.setattr(conformance, "_checked", lambda brought: "asked again")
    assert "padding never leaks" in conformance.fault(THEIRS)
    assert conformance.fault(replace(THEIRS, hash="another")) == "asked again"


def test_what_comes_after_a_broken_promise_is_not_computed(monkeypatch):
    def promises(kit):
        yield Promise("holds", True)
        yield Promise("breaks", False, "so")
        raise AssertionError

    monkeypatch.setattr(checks, "run", promises)
    assert conformance.fault(THEIRS) == "breaks: so"


def test_ours_are_checked_by_our_own_tests(monkeypatch):
    monkeypatch.setattr(conformance, "_checked", lambda brought: "asked")
    assert conformance.fault(replace(THEIRS, distribution="deepmine-auto")) == ""


def test_without_pytest_the_remedies_are_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    for each in ("attention", "drawing"):
        monkeypatch.delitem(sys.modules, f"deepmine_auto.testing.{each}", raising=False)
    with pytest.raises(MissingExtra, match=r"'leaky' keeps its promises cannot be checked .* --unchecked\."):
        conformance.fault(THEIRS)


def test_a_variant_that_breaks_a_promise_is_left_out_and_named():
    left_out, both = [], {"leaky": Leaky, "multi_head": MultiHead}
    admit = admitting([5, 9], 9, left_out, {"leaky": "padding leaks", "multi_head": ""}.get)
    assert admit(both, [Encoder]) == {"multi_head": MultiHead}
    assert left_out == ["left out: leaky breaks a promise: padding leaks"]
    why = r"No core or mixer is among the attentions leaky: leaky breaks a promise: padding leaks\. Add one"
    with pytest.raises(BadInput, match=why):
        admit({"leaky": Leaky}, [Encoder])


def test_a_variant_that_breaks_a_promise_is_not_asked_what_it_costs():
    def cost(*_):
        raise AssertionError("asked")

    raising = type("Raising", (Leaky,), {"cost": cost})
    left_out = []
    admit = admitting([5, 9], 9, left_out, {"raising": "its cost raises", "multi_head": ""}.get)
    assert [*admit({"raising": raising, "multi_head": MultiHead}, [Encoder])] == ["multi_head"]
    assert left_out == ["left out: raising breaks a promise: its cost raises"]
