"""What variants say and look like, as plain numbers, as SVG, and on the page of all of them."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

from deepmine_auto import AttentionCore, Caps, Choice, DenseAttention, Int
from deepmine_auto.commands.showing import card_of, page_of, svg_of
from deepmine_auto.contracts import Brought
from deepmine_auto.gallery.facts import amount, attention_words, facts_of, growth_words, link_of, memory, text_of
from deepmine_auto.gallery.pattern import FEW, TOKENS, draw, shares
from deepmine_auto.gallery.svg import escaped
from deepmine_auto.host import the_host

sys.path.append(str(Path(__file__).parents[1] / "dashboard"))

from browsing import browser_in

HOSTILE = "</title></style><script>alert('x')</script> \" onload='alert(1)' & ]]> \x00\x1b[2J\ufffe"


@dataclass(frozen=True, kw_only=True)
class Near(AttentionCore):
    """Looks at few."""

    name: ClassVar[str] = "near"
    source: ClassVar[str] = "arXiv:1706.03762"
    caps: ClassVar[Caps] = Caps.everywhere(weights="exact")

    reach: Annotated[int, Int(16, 512)] = 64
    width: Annotated[int, Int(2, 8)] = 2

    def build(self, shape):
        return _Near(self.reach)


class _Near(DenseAttention):
    def __init__(self, reach):
        super().__init__()
        self.reach = reach

    def normalize(self, scores_BHLS):
        kept = scores_BHLS.topk(min(self.reach, scores_BHLS.shape[-1])).values[..., -1:]
        return scores_BHLS.masked_fill(scores_BHLS < kept, -torch.inf).softmax(-1)


def brought(cls, **changed):
    return Brought(**{"kind": "attention", "name": cls.name, "thing": cls, "distribution": "theirs", "version": "1",
                      "path": "a:B", "source": cls.source, **changed})  # fmt: skip


def hostile(cls):
    """A variant whose every text tries to leave its place."""
    worst = type("Worst", (cls,), {"__doc__": HOSTILE, "caps": Caps.everywhere(weights="exact")})
    texts = dict.fromkeys(("name", "distribution", "version", "path", "source"), f"{HOSTILE}\ud800")
    return brought(worst, **texts)


# -- patterns ----------------------------------------------------------------------------------------------------------


def test_a_whole_number_is_made_small_where_that_hides_more_and_nowhere_else():
    for each in draw(Near).patterns:
        assert each.small == {"reach": FEW}
        assert all(sum(weight > 0 for weight in row) <= FEW for row in each.rows)


def test_a_causal_picture_is_empty_above_its_diagonal():
    bidirectional, causal = draw(the_host().get("attention", "multi_head")).patterns
    assert all(not any(row[at + 1 :]) for at, row in enumerate(causal.rows))
    assert all(all(row) for row in bidirectional.rows)


def test_a_picture_is_the_same_each_time_and_leaves_the_random_state_alone():
    torch.manual_seed(3)
    first = draw(the_host().get("attention", "rotary"))
    assert draw(the_host().get("attention", "rotary")) == first
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.rand(1) == drawn


def test_a_modifier_shows_what_it_changes_though_it_starts_as_softmax():
    softmax = draw(the_host().get("attention", "multi_head")).patterns[0].rows
    changed = draw(the_host().get("attention", "learned_temperature")).patterns[0].rows
    assert len(softmax) == len(changed) == TOKENS
    assert max(abs(a - b) for ours, theirs in zip(softmax, changed, strict=True)
               for a, b in zip(ours, theirs, strict=True)) > 0.01  # fmt: skip


def test_shares_are_of_the_largest_in_a_row_whatever_its_sign():
    assert shares([[0.5, -1.0], [0.0, 0.0], [2.0, 1.0]]) == [[0.5, -1.0], [0.0, 0.0], [1.0, 0.5]]


def test_what_has_no_matrix_says_so():
    assert draw(type("Blind", (Near,), {"caps": Caps.everywhere()})) == ([], "it has no matrix")


def test_what_looks_from_one_sequence_at_another_says_so():
    crossing = Caps.everywhere(weights="exact", modes=frozenset({"cross"}))
    assert draw(type("Crossing", (Near,), {"caps": crossing})).why_none == "it looks from one sequence at another"


def test_a_variant_that_breaks_is_shown_with_its_reason():
    def broken(self, *_):
        raise KeyError("no luck")

    card = card_of(brought(type("Broken", (Near,), {"build": broken, "cost": broken})))
    assert card.drawn == ([], "it cannot be drawn: KeyError: 'no luck'")
    assert card.said["attention"]["no_costs"] == "its cost cannot be told: KeyError: 'no luck'"
    text = page_of([brought(type("Broken", (Near,), {"build": broken, "cost": broken}))], "1")
    assert escaped("its cost cannot be told: KeyError: 'no luck'") in text


def test_a_variant_that_gives_no_weights_is_shown_with_its_reason():
    class Silent(nn.Module):
        def forward(self, q, k, v, mask, *, weights):
            return DenseAttention()(q, k, v, mask)

    silent = type("SilentOne", (Near,), {"build": lambda self, shape: Silent()})
    assert "it declares weights, and gave none" in draw(silent).why_none


def test_weights_that_are_no_numbers_are_drawn_as_nothing():
    def normalize(self, scores_BHLS):
        return scores_BHLS * torch.nan

    lost = type(
        "Lost", (Near,), {"build": lambda self, shape: type("_Lost", (DenseAttention,), {"normalize": normalize})()}
    )
    assert not any(any(row) for row in draw(lost).patterns[0].rows)
    assert "<path" not in svg_of(card_of(brought(lost)))


# -- facts -------------------------------------------------------------------------------------------------------------


def test_costs_are_told_for_the_lengths_that_a_variant_takes():
    short = type("Short", (Near,), {"caps": Caps.everywhere(max_len=1024)})
    costs = facts_of(brought(short))["attention"]["costs"]
    assert costs[0] == {"length": 128, "operations": 4.0 * 128**2 * 256, "bytes": 4.0 * 128**2 * 4}
    assert [each["length"] for each in costs] == [128, 1024]
    assert ("longest", "1,024 tokens") in attention_words(facts_of(brought(short))["attention"])


def test_costs_are_those_of_the_shape_that_a_variant_asks_for():
    seen = []

    def adapt(self, shape):
        return seen.append(shape) or shape

    facts_of(brought(type("Asking", (Near,), {"adapt": adapt})))
    assert [each.max_len for each in seen] == [128, 1024, 8192]


def test_a_docstring_is_told_in_whole_paragraphs_and_a_missing_one_is_empty():
    told = type("Told", (), {"__doc__": "Sets ``lr``,\n    and `rate`.\n\n    More."})
    assert text_of(told) == "Sets `lr`, and `rate`.\n\nMore."
    assert text_of(dataclass(type("Untold", (), {}))) == ""


def test_only_papers_and_pages_are_linked():
    assert link_of("arXiv:2004.05150v2") == "https://arxiv.org/abs/2004.05150v2"
    assert link_of("https://example.org/a") == "https://example.org/a"
    assert [link_of(each) for each in ("javascript:alert(1)", "arXiv:1706.03762 javascript:", "", "a book")] == [
        None
    ] * 4


def test_numbers_are_told_in_words():
    assert [amount(each) for each in (12, 999_600, 4.2e9)] == ["12", "1 million", "4.2 billion"]
    assert [memory(each) for each in (12, 262_144, 1.1e9)] == ["12 bytes", "262 KB", "1.1 GB"]
    assert growth_words(1.5, "core").endswith("to the power of 1.5: twice the tokens cost 2.8 times as much")


# -- pages and files ---------------------------------------------------------------------------------------------------


def test_no_text_of_a_plugin_leaves_its_place_in_a_file():
    root = ElementTree.fromstring(svg_of(card_of(hostile(Near))).encode())
    assert {each.tag.rpartition("}")[2] for each in root.iter()} <= {
        "svg", "title", "desc", "style", "rect", "text", "g", "path",
    }  # fmt: skip
    assert not any(name.startswith("on") for each in root.iter() for name in each.attrib)
    assert "<script>alert('x')</script>" in root.find("{*}desc").text


def test_no_text_of_a_plugin_leaves_its_place_on_the_page():
    text = page_of([hostile(Near)], HOSTILE)
    assert "<script" not in text
    assert "alert('" not in text
    assert text.count("</style>") == text.count("</title>") == 1
    text.encode()


def test_no_range_and_no_error_of_a_plugin_leaves_its_place_on_the_page():
    def broken(self, shape):
        raise ValueError(HOSTILE)

    options = {"__annotations__": {"kind": Annotated[str, Choice("a", HOSTILE)]}, "kind": "a", "build": broken}
    text = page_of([brought(dataclass(frozen=True, kw_only=True)(type("Worst", (Near,), options)))], "1")
    assert "<script" not in text
    assert text.count("&lt;script&gt;") == 2


def test_code_in_a_docstring_is_marked_as_code_and_escaped():
    told = brought(type("Told", (Near,), {"__doc__": "Over `a < b` and\n\n`<b>`."}))
    assert "<p>Over <code>a &lt; b</code> and</p><p><code>&lt;b&gt;</code>.</p>" in page_of([told], "1")


def test_the_page_fetches_nothing_and_runs_nothing():
    text = page_of(the_host().offered("attention").values(), "1")
    assert "default-src 'none'" in text
    assert not re.search(r"<(script|link|img|iframe|object|embed|use|image)\b|@import|url\(|\bon\w+=|\bsrc=", text)


def test_every_variant_is_on_the_page_with_its_paper_and_its_pictures():
    offered = the_host().offered("attention")
    text = page_of(offered.values(), "1")
    for name, each in offered.items():
        card = re.search(rf'<article id="{name}">.*?</article>', text, re.DOTALL)[0]
        assert f'href="{link_of(each.source)}"' in card
        assert card.count("<figure>") == len(draw(each.thing).patterns)
        assert 'href="#' + name + '"' in text


def test_a_picture_without_weights_is_a_sentence():
    assert "No picture: it has no matrix." in svg_of(
        card_of(brought(type("Blind", (Near,), {"caps": Caps.everywhere()})))
    )


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """The page of all variants and of a hostile one, in a browser."""
    folder = tmp_path_factory.mktemp("gallery")
    browser = browser_in(folder)
    variants = [*the_host().offered("attention").values(), hostile(Near)]
    (folder / "page.html").write_text(page_of(variants, "1"), encoding="utf-8")
    return browser.page((folder / "page.html").as_uri())


@pytest.mark.slow
def test_a_browser_shows_the_page_without_complaint(opened):
    assert opened.title == "Attention variants"
    assert opened.console == []
    assert f"{len(the_host().offered('attention')) + 1} attention variants" in opened.text
    assert opened.picture.stat().st_size > 50_000


@pytest.mark.slow
def test_a_browser_finds_no_script_on_the_page(opened):
    assert "<script" not in opened.html
    assert "</title></style>" not in opened.html.replace("&lt;", "<").split("<body>")[0]
