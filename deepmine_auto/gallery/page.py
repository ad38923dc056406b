"""One HTML page of all attention variants, which needs nothing but itself: no script, no font, no picture from afar."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from deepmine_auto.gallery.facts import attention_words, cost_rows
from deepmine_auto.gallery.pattern import DIM, HEADS, Drawn, Pattern
from deepmine_auto.gallery.svg import CELLS, DARK_CELLS, HOW_TO_READ, box, caption, cells, escaped

CODE = re.compile("`([^`]+)`")

PARTS = {
    "core": ("Cores", "They mix values by queries and keys. A layer has one core or one mixer."),
    "mixer": (
        "Mixers",
        "They stand in the place of a core, and their costs count the projections that cores leave to the model.",
    ),
    "modifier": ("Modifiers", "They change a core, and several of them can. Their costs are what they add."),
}

STYLE = f"""
:root{{color-scheme:light dark;--ground:#f6f7f9;--card:#fff;--ink:#1f2328;--dim:#59636e;--line:#d7dce2;--link:#1d4ed8}}
*{{box-sizing:border-box}}
body{{margin:0 auto;padding:2.5rem 1.25rem;max-width:86rem;background:var(--ground);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}}
h1{{margin:0 0 .5rem;font-size:1.8rem}}h2{{margin:2.5rem 0 .25rem;font-size:1.3rem}}h3{{margin:0;font-size:1.1rem}}
p{{margin:.4rem 0}}.lead{{max-width:52rem}}.dim,figcaption,th,dt{{color:var(--dim);font-weight:400}}
a{{color:var(--link)}}nav{{margin:1rem 0;line-height:1.9}}nav a{{margin-right:.9rem;white-space:nowrap}}
nav b{{margin-right:.9rem}}code{{font:.92em ui-monospace,monospace}}
.cards{{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(25rem,100%),1fr));gap:1rem;margin-top:1rem}}
article{{display:flex;flex-direction:column;gap:.5rem;padding:1.1rem;border:1px solid var(--line);border-radius:8px;
background:var(--card);overflow-wrap:anywhere}}
.pictures{{display:grid;grid-template-columns:1fr 1fr;gap:1rem}}figure{{margin:0}}
figure svg{{display:block;width:100%;aspect-ratio:1;border:1px solid var(--line)}}
.none{{display:grid;place-items:center;padding:1.5rem;border:1px dashed var(--line);color:var(--dim)}}
dl{{display:grid;grid-template-columns:max-content 1fr;gap:.1rem .9rem;margin:0;font-size:.87rem}}dd{{margin:0}}
table{{margin-top:auto;width:100%;border-collapse:collapse;font-size:.87rem;font-variant-numeric:tabular-nums}}
th,td{{padding:.15rem 0;text-align:right;border-top:1px solid var(--line)}}
th:first-child,td:first-child{{text-align:left}}
small{{font-size:.8rem;color:var(--dim)}}
{CELLS}
@media(prefers-color-scheme:dark){{:root{{--ground:#0f1115;--card:#171a20;--ink:#e6e9ed;--dim:#9aa4af;--line:#2d333b;
--link:#79a8ff}}{DARK_CELLS}}}
"""


class Card(NamedTuple):
    """One attention variant: what it says of itself, and its pictures."""

    said: Mapping[str, Any]
    drawn: Drawn


def page(cards: Sequence[Card], version: str) -> str:
    """The whole page."""
    shown = {role: [each for each in cards if each.said["attention"]["role"] == role] for role in PARTS}
    parts = "".join(_part(role, found) for role, found in shown.items() if found)
    links = "".join(_links(role, found) for role, found in shown.items() if found)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width,initial-scale=1"><title>Attention variants</title>'
        f"<style>{STYLE}</style></head><body><header><h1>{len(cards)} attention variants</h1>"
        f'<p class="lead">{escaped(LEAD)}</p></header><nav>{links}</nav><main>{parts}</main>'
        f'<footer class="dim"><p>Written by deepmine-auto {escaped(version)}.</p></footer></body></html>\n'
    )


LEAD = (
    "What deepmine-auto can search, each as it declares itself. The pictures show who looks at whom: weights of one "
    f"head on random tokens. {HOW_TO_READ} Operations and memory are those of one row in one forward pass, with dim "
    f"{DIM} and {HEADS} heads."
)


def _part(role: str, cards: Iterable[Card]) -> str:
    title, lead = PARTS[role]
    return (
        f'<section><h2>{title}</h2><p class="lead dim">{lead}</p>'
        f'<div class="cards">{"".join(map(_card, cards))}</div></section>'
    )


def _links(role: str, cards: Iterable[Card]) -> str:
    links = "".join(f'<a href="#{_id(each)}">{escaped(each.said["name"])}</a> ' for each in cards)
    return f"<p><b>{PARTS[role][0]}</b> {links}</p>"


def _id(card: Card) -> str:
    return escaped("-".join(card.said["name"].split()))


def _card(card: Card) -> str:
    said = card.said
    return (
        f'<article id="{_id(card)}"><div><h3>{escaped(said["name"])}</h3><small>{_paper(said)}, '
        f"{escaped(said['distribution'])} {escaped(said['version'])}</small></div>{_text(said['text'])}"
        f"{_pictures(card)}{_words(said)}{_costs(said['attention'])}</article>"
    )


def _text(text: str) -> str:
    paragraphs = (CODE.sub(r"<code>\1</code>", escaped(each)) for each in text.split("\n\n"))
    return "".join(f"<p>{each}</p>" for each in paragraphs)


def _paper(said: Mapping[str, Any]) -> str:
    words = escaped(said["source"])
    return f'<a href="{escaped(said["link"])}" rel="noreferrer">{words}</a>' if said["link"] else words


def _pictures(card: Card) -> str:
    patterns, why_none = card.drawn
    if not patterns:
        return f'<p class="none">No picture: {escaped(why_none)}.</p>'
    figures = "".join(map(_figure, patterns))
    return f'<div class="pictures">{figures}</div><small>{escaped(caption(card.said, patterns))}</small>'


def _figure(pattern: Pattern) -> str:
    return (
        f'<figure><svg viewBox="{box(pattern)}" preserveAspectRatio="none" role="img" '
        f'aria-label="{pattern.mode} weights">{cells(pattern)}</svg><figcaption>{pattern.mode}</figcaption></figure>'
    )


def _words(said: Mapping[str, Any]) -> str:
    searched = [f"{each['name']}, {each['range']}" for each in said["fields"] if each["range"]]
    pairs = [("searched", "; ".join(searched) or "nothing"), *attention_words(said["attention"])[1:]]
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{escaped(words)}</dd>' for name, words in pairs)}</dl>"


def _costs(said: Mapping[str, Any]) -> str:
    if said["no_costs"]:
        return f"<p>{escaped(said['no_costs'])}</p>"
    rows = "".join(f"<tr>{''.join(f'<td>{each}</td>' for each in row)}</tr>" for row in cost_rows(said))
    return f"<table><tr><th>tokens</th><th>operations</th><th>memory</th></tr>{rows}</table>"
