"""What a plugin says of itself: plain values for programs, and the same in words for people."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from inspect import cleandoc
from typing import Any

from deepmine_auto.contracts import Attention, AttentionCore, AttentionModifier, AttentionShape, Brought
from deepmine_auto.gallery.pattern import DIM, HEADS
from deepmine_auto.space import ranges

LENGTHS = (128, 1024, 8192)

ROLES = {
    "core": "a core: it mixes values by queries and keys",
    "modifier": "a modifier: it changes a core",
    "mixer": "a mixer: it owns its projections",
}
WEIGHTS = {
    "exact": "it can return the matrix that multiplies the values",
    "implicit": "it can compute a matrix that does the same",
    "none": "it has no matrix",
}
FIT = {
    "exact": "enters a pretrained model and changes nothing at its neutral setting",
    "finetune": "enters a pretrained model, which must then be fine-tuned",
    "weights": "brings weights of its own, which must be trained",
}
DECODING = {
    "kv": "token by token, from the keys and values before",
    "state": "token by token, from a state that says all of the past",
    "none": "not token by token",
}
NEEDS = {
    "nothing": "any core",
    "bias": "a core that takes a bias",
    "matrix": "a core whose weight matrix can be changed",
    "past": "a core that shows its weights, in a model that goes step by step",
}


def facts_of(brought: Brought) -> dict[str, Any]:
    """A plugin as plain values; `attention` is there for attention variants alone."""
    found = {
        "name": brought.name,
        "kind": brought.kind,
        "distribution": brought.distribution,
        "version": brought.version,
        "path": brought.path,
        "source": brought.source,
        "link": link_of(brought.source),
        "text": text_of(brought.thing),
        "fields": fields_of(brought.thing),
    }
    return {**found, "attention": _attention(brought.thing)} if brought.kind == "attention" else found


def link_of(source: str) -> str | None:
    """Where a paper or page can be read; None where the source does not say.

    >>> link_of("arXiv:2004.05150")
    'https://arxiv.org/abs/2004.05150'
    """
    paper = re.fullmatch(r"arXiv:(\d{4}\.\d{4,5}|[a-z.-]+/\d{7})(v\d+)?", source)
    if paper:
        return f"https://arxiv.org/abs/{paper[1]}{paper[2] or ''}"
    return source if re.fullmatch(r"https?://\S+", source) else None


def text_of(thing: Any) -> str:
    """The docstring of a class, or the help of a command, one line a paragraph; empty where there is none. Code stands
    in single backticks."""
    said = (thing.__doc__ if isinstance(thing, type) else getattr(thing, "help", "")) or ""
    if isinstance(thing, type) and said.startswith(f"{thing.__name__}("):
        return ""  # what dataclass writes where nobody did
    paragraphs = cleandoc(said).replace("``", "`").split("\n\n")
    return "\n\n".join(" ".join(each.split()) for each in paragraphs)


def fields_of(thing: Any) -> list[dict[str, Any]]:
    """The fields of a plugin, with what a search draws them from, or None, and their defaults."""
    if not (isinstance(thing, type) and is_dataclass(thing)):
        return []
    searched = ranges(thing)
    return [
        {
            "name": each.name,
            "range": _range_words(searched[each.name]) if each.name in searched else None,
            "default": None if each.default is MISSING else each.default,
        }
        for each in fields(thing)
    ]


def _range_words(each: Any) -> str:
    said = f"{each}, by orders of magnitude" if getattr(each, "log", False) else str(each)
    return said if getattr(each, "searched", True) else f"{said}, where a space asks for it"


# -- attention ---------------------------------------------------------------------------------------------------------


def _attention(cls: type[Attention]) -> dict[str, Any]:
    caps = cls.caps
    costs, why = _costs(cls)
    return {
        "role": role_of(cls),
        "modes": sorted(caps.modes),
        "masks": sorted(caps.masks),
        "weights": caps.weights,
        "fit": caps.fit,
        "decoding": caps.decoding,
        "scaling": caps.scaling,
        "saves": caps.saves,
        "onnx": caps.onnx,
        "max_len": caps.max_len,
        "needs": cls.needs if issubclass(cls, AttentionModifier) else None,
        "neutral": None if cls.neutral is None else dict(cls.neutral),
        "costs": costs,
        "no_costs": why,
    }


def role_of(cls: type[Attention]) -> str:
    """Core, modifier or mixer."""
    if issubclass(cls, AttentionCore):
        return "core"
    return "modifier" if issubclass(cls, AttentionModifier) else "mixer"


def _costs(cls: type[Attention]) -> tuple[list[dict[str, float]], str]:
    """What a row takes at each length that it may have, or why that is not known."""
    lengths = [each for each in LENGTHS if cls.caps.max_len is None or each <= cls.caps.max_len]
    try:
        return [_cost(cls(), each) for each in lengths], ""
    except Exception as error:  # a plugin's own code, whatever it raises: the rest can still be shown
        return [], f"its cost cannot be told: {type(error).__name__}: {error}"


def _cost(variant: Attention, length: int) -> dict[str, float]:
    shape = variant.adapt(AttentionShape(dim=DIM, heads=HEADS, kv_heads=HEADS, layer=1, max_len=length))
    cost = variant.cost(shape, length)
    return {"length": length, "operations": float(cost.flops), "bytes": float(cost.peak_bytes)}


# -- words -------------------------------------------------------------------------------------------------------------


def attention_words(said: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What an attention variant declares, each with its label."""
    words = [
        ("what", ROLES[said["role"]]),
        ("modes", _listed(said["modes"])),
        ("masks", _listed(said["masks"])),
        ("weights", WEIGHTS[said["weights"]]),
        ("pretrained", FIT[said["fit"]]),
        ("decoding", DECODING[said["decoding"]]),
        ("neutral", neutral_words(said["neutral"])),
        ("complexity", growth_words(said["scaling"], said["role"])),
    ]
    words += [("needs", NEEDS[said["needs"]])] if said["needs"] else []
    words += [("longest", f"{said['max_len']:,} tokens")] if said["max_len"] else []
    words += [("export", "to ONNX, for any batch and length")] if said["onnx"] else []
    words += [("gain", "it costs less than softmax, and offers no more")] if said["saves"] else []
    return words


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def neutral_words(neutral: Mapping[str, Any] | None) -> str:
    """Where a variant equals softmax attention.

    >>> neutral_words({"start": 0.0})
    'equals softmax attention at start = 0.0'
    """
    if neutral is None:
        return "no setting equals softmax attention"
    setting = ", ".join(f"{name} = {value}" for name, value in neutral.items())
    return f"equals softmax attention at {setting}" if setting else "equals softmax attention"


def growth_words(scaling: float, role: str) -> str:
    """How cost grows with length.

    >>> growth_words(2.0, "core")
    'its cost grows with the square of the length: twice the tokens cost 4 times as much'
    """
    power = {0.0: "not at all", 1.0: "with the length", 2.0: "with the square of the length"}
    how = power.get(scaling, f"with the length to the power of {scaling:g}")
    what = "what it adds" if role == "modifier" else "its cost"
    times = {0.0: "the same", 1.0: "twice as much"}.get(scaling, f"{2.0**scaling:.2g} times as much")
    return f"{what} grows {how}: twice the tokens cost {times}"


def cost_rows(said: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """A row for each length: tokens, operations, memory."""
    return [(f"{each['length']:,}", amount(each["operations"]), memory(each["bytes"])) for each in said["costs"]]


def amount(number: float) -> str:
    """A large number in words.

    >>> amount(16_777_216)
    '16.8 million'
    """
    return _scaled(number, ("", " thousand", " million", " billion", " trillion"))


def memory(size: float) -> str:
    """A size in bytes.

    >>> memory(262_144)
    '262 KB'
    """
    return _scaled(size, (" bytes", " KB", " MB", " GB", " TB"))


def _scaled(number: float, names: tuple[str, ...]) -> str:
    at = 0
    while abs(number) >= 999.5 and at < len(names) - 1:
        number, at = number / 1000.0, at + 1
    return f"{number:.3g}{names[at]}"
