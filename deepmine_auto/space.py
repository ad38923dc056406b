"""The search space: ranges, and the params that plugins bring.

A param has a slash-separated name (`attention/sliding_window/window`), a range, and conditions: it exists only where
other params have certain values. Names never change meaning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_type_hints

from deepmine_auto.admission import contradiction
from deepmine_auto.contracts import AttentionModifier, Plugin
from deepmine_auto.errors import BadInput

if TYPE_CHECKING:
    import optuna

T = TypeVar("T")
Value = bool | int | float | str

FIDELITY = "training/rows"
"""The param that says how much of the data a trial reads. What was found with less of them holds for more of them."""


@dataclass(frozen=True)
class Int:
    """Whole numbers from `low` to `high`, both included. One that is not `searched` keeps its default where no space
    names it."""

    low: int
    high: int
    log: bool = False
    step: int = 1
    searched: bool = True

    def __post_init__(self) -> None:
        _refuse_undrawable(self, self.step if self.step != 1 else None)

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"a whole number from {self.low} to {self.high}"

    def suggest(self, trial: optuna.Trial, name: str) -> Value:
        """Draw a value from an Optuna trial."""
        return trial.suggest_int(name, self.low, self.high, log=self.log, step=self.step)


@dataclass(frozen=True)
class Float:
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        _refuse_undrawable(self, self.step)

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        return math.isfinite(value) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"a number from {self.low:g} to {self.high:g}"

    def suggest(self, trial: optuna.Trial, name: str) -> Value:
        """Draw a value from an Optuna trial."""
        return trial.suggest_float(name, self.low, self.high, log=self.log, step=self.step)


@dataclass(frozen=True, init=False)
class Choice:
    """One of some options: strings, numbers or booleans. One that is not `searched` keeps its default where no space
    names it."""

    options: tuple[Value, ...]
    searched: bool = True

    def __init__(self, *options: Value, searched: bool = True) -> None:
        object.__setattr__(self, "options", options)
        object.__setattr__(self, "searched", searched)

    def __contains__(self, value: object) -> bool:
        return any(value == each and type(value) is type(each) for each in self.options)

    def __str__(self) -> str:
        return f"one of {', '.join(map(str, self.options))}"

    def suggest(self, trial: optuna.Trial, name: str) -> Value:
        """Draw a value from an Optuna trial."""
        drawn = trial.suggest_categorical(name, self.options)
        assert drawn is not None
        return drawn


@dataclass(frozen=True)
class Name:
    """A text that no plugin can list, such as the place of a model; a space says which, `what` says of what kind."""

    what: str

    def __contains__(self, value: object) -> bool:
        return isinstance(value, str) and bool(value)

    def __str__(self) -> str:
        return self.what

    def suggest(self, trial: optuna.Trial, name: str) -> Value:
        """Refuse: nothing can be drawn before a space says which there are."""
        raise TypeError(f"'{name}' has no values to draw from")


def _refuse_undrawable(each: Int | Float, step: float | None) -> None:
    """Raise BadInput for a range that nothing can be drawn from: a sampler would say so in the middle of a study."""
    if not -math.inf < each.low <= each.high < math.inf:
        raise BadInput(f"The range {each!r} holds no number.", "Give a low that is not above high, both finite.")
    if each.log and each.low <= 0:
        raise BadInput(
            f"The range {each!r} is logarithmic, and begins at {each.low:g}.", "Begin above 0, or leave log out."
        )
    if each.log and step is not None:
        raise BadInput(f"The range {each!r} has a step and is logarithmic.", "Leave one of them out.")
    if step is not None and not step > 0:
        raise BadInput(f"The range {each!r} has the step {step:g}.", "Give a step above 0.")


Range = Int | Float | Choice
Conditions = Mapping[str, tuple[Value, ...]]


@dataclass(frozen=True)
class Param:
    """A named range, and the values that other params must have for it to exist."""

    name: str
    range: Range
    when: Conditions

    def active(self, params: Mapping[str, Value]) -> bool:
        """Whether the params drawn so far call for this one."""
        return all(params.get(name) in values for name, values in self.when.items())


@dataclass(frozen=True)
class Space:
    """Params to be drawn, conditions before what depends on them; fixed values; recipes to be tried first."""

    params: tuple[Param, ...]
    fixed: Mapping[str, Value]
    recipes: tuple[Mapping[str, Value], ...] = ()

    def draw(self, suggest: Callable[[Param], Value]) -> dict[str, Value]:
        """Draw every param that is active."""
        drawn: dict[str, Value] = {}
        for param in self.params:
            if param.active({**self.fixed, **drawn}):
                drawn[param.name] = suggest(param)
        return drawn

    def complete(self, drawn: Mapping[str, Value]) -> dict[str, Value]:
        """Add what is fixed, which a worker must know and a row need not repeat; names are plain ones."""
        return {**self.fixed, **plain(drawn)}

    def fit(self, params: Mapping[str, Value]) -> dict[str, Value] | None:
        """The searched part of complete params that were drawn from another space; None where this space cannot say
        them. What the other space did not know is left out, and a plugin that it did not know was not used."""
        left = relevant(params)
        if FIDELITY not in {each.name for each in self.params}:
            left.pop(FIDELITY, None)
        if any(left.pop(name, _unused(name, value)) != value for name, value in self.fixed.items()):
            return None
        found: dict[str, Value] = {}
        for param in self.params:
            value = left.pop(param.name, _unused(param.name, None)) if param.active({**self.fixed, **found}) else None
            if value is None:
                continue
            if value not in param.range:
                return None
            found[param.name] = value
        return None if left else found

    def to_json(self) -> dict[str, Any]:
        """Return plain values, as the study keeps them."""
        rows = [
            {"name": each.name, "range": [type(each.range).__name__, asdict(each.range)], "when": dict(each.when)}
            for each in self.params
        ]
        return {"params": rows, "fixed": dict(self.fixed), "recipes": [dict(each) for each in self.recipes]}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Space:
        """Read what `to_json` wrote."""
        params = tuple(
            Param(row["name"], _range_from(*row["range"]), {name: tuple(each) for name, each in row["when"].items()})
            for row in plain["params"]
        )
        return cls(params, plain["fixed"], tuple(plain["recipes"]))


def plain(params: Mapping[str, T]) -> dict[str, T]:
    """Params by today's names: a row says `attention/kind@2` where `attention/kind` once had other choices."""
    return {name.partition("@")[0]: value for name, value in params.items()}


def relevant(params: Mapping[str, T]) -> dict[str, T]:
    """Complete params without those of plugins that they do not use."""

    def counts(name: str) -> bool:
        first, *rest = name.split("/")
        used = len(rest) < 2 or params.get(f"{first}/kind") == rest[0]
        return used or params.get(f"{first}/{rest[0]}/use") is True

    return {name: value for name, value in params.items() if counts(name)}


def essential(params: Mapping[str, T]) -> dict[str, T]:
    """Params without those that say no more than their absence: what is not used, and one variant in all layers,
    whichever way that is said."""
    idle = {"use": False, "kind": "same"}
    left = {name: value for name, value in params.items() if idle.get(name.rpartition("/")[2]) != value}
    return {name: each for name, each in left.items() if not name.startswith("placement/")} if _alike(left) else left


def _alike(params: Mapping[str, Any]) -> bool:
    """Whether the other variant that a hybrid names is that of all layers, or has its turn in no layer."""
    kind, ratio = (params.get(f"placement/hybrid/{each}") for each in ("kind", "ratio"))
    if kind is None or ratio is None:  # a recipe may leave one of them to the sampler
        return False
    return bool(kind == params.get("attention/kind") or params.get("model/depth", ratio + 1) <= ratio)


def _unused(name: str, value: Value | None) -> Value | None:
    """What holds where params do not name it: a plugin is not used; for anything else, `value`."""
    return False if name.endswith("/use") else value


def _range_from(kind: str, values: Mapping[str, Any]) -> Range:
    if kind == "Choice":
        return Choice(*values["options"], searched=values.get("searched", True))
    return Int(**values) if kind == "Int" else Float(**values)


def ranges(cls: type) -> dict[str, Range]:
    """The searched fields of a plugin class and their ranges, in the order of the class."""
    hints = get_type_hints(cls, include_extras=True)
    found = {}
    for each in fields(cls):
        for mark in getattr(hints[each.name], "__metadata__", ()):
            if isinstance(mark, Int | Float | Choice | Name):
                found[each.name] = cast(Range, mark)  # a space file puts a choice in the place of a name
    return found


def defaults(cls: type) -> dict[str, Value]:
    """The default of each searched field that has one."""
    return {each.name: each.default for each in fields(cls) if each.name in ranges(cls) and each.default is not MISSING}


def plugin_from(cls: type[T], params: Mapping[str, Value], *prefixes: str) -> T:
    """Build a plugin from the params that stand under its prefixes; the others keep their defaults."""
    given = {}
    for each in fields(cls):  # type: ignore[arg-type]
        for prefix in prefixes:
            if f"{prefix}/{each.name}" in params:
                given[each.name] = params[f"{prefix}/{each.name}"]
    return cls(**given)


# -- joining what plugins declare ------------------------------------------------------------------------------------

SHARED_BY_BACKBONES = ("depth", "dim", "heads")


def join(chosen: Mapping[str, Mapping[str, type[Plugin]]], always: Mapping[str, type]) -> tuple[Param, ...]:
    """Join the ranges of chosen plugins (kind -> name -> class) and of the host's own dataclasses (prefix -> class)."""
    params = [*_attention(chosen["attention"]), *_placement(chosen.get("hybrid", {}), chosen["attention"])]
    params += [*_backbones(chosen["backbone"]), *_tuning(chosen), *_one_of("optimizer", chosen)]
    params += [*_techniques(chosen), *_one_of("schedule", chosen)]
    for prefix, cls in always.items():
        params += [Param(f"{prefix}/{name}", each, {}) for name, each in ranges(cls).items()]
    return tuple(params)


def usual_values(chosen: Mapping[str, Mapping[str, type[Plugin]]], always: Mapping[str, type]) -> dict[str, Value]:
    """What params are where nobody says otherwise, by name: the defaults of fields, one variant everywhere, and a
    learning rate that falls as a cosine."""
    found = {"placement/kind": "same", "schedule/kind": "cosine", **_under(always)}
    for kind, classes in chosen.items():
        prefix = {"backbone": "model"}.get(kind, kind)
        found |= _under({f"{prefix}/{name}": each for name, each in classes.items()})
    for each in chosen["backbone"].values():
        shared = {f"model/{name}": value for name, value in defaults(each).items() if name in SHARED_BY_BACKBONES}
        found = {**shared, **found}
    return found


def _under(classes: Mapping[str, type]) -> dict[str, Value]:
    return {f"{prefix}/{name}": value for prefix, cls in classes.items() for name, value in defaults(cls).items()}


def _attention(variants: Mapping[str, Any]) -> list[Param]:
    modifiers = {name: each for name, each in variants.items() if issubclass(each, AttentionModifier)}
    kinds = {name: each for name, each in variants.items() if name not in modifiers}
    params = _one_of("attention", {"attention": kinds})
    for name, modifier in modifiers.items():
        cores = tuple(kind for kind, each in kinds.items() if not contradiction(each, modifier))
        if cores:
            params += _optional(f"attention/{name}", modifier, {"attention/kind": cores})
    return params


def _placement(others: Mapping[str, type[Plugin]], variants: Mapping[str, Any]) -> list[Param]:
    """One variant everywhere, or after each `ratio` layers of it one of another: local to global, linear to softmax."""
    kinds = [name for name, each in variants.items() if not issubclass(each, AttentionModifier)]
    mixed = tuple(each for each in kinds if {*others} - {each})  # one among layers of its own would change nothing
    if not mixed:
        return []
    when: Conditions = {} if len(mixed) == len(kinds) else {"attention/kind": mixed}
    hybrid = {**when, "placement/kind": ("hybrid",)}
    return [
        Param("placement/kind", Choice("same", "hybrid"), when),
        Param("placement/hybrid/ratio", Int(1, 5), hybrid),
        Param("placement/hybrid/kind", Choice(*others), hybrid),
    ]


def _techniques(chosen: Mapping[str, Mapping[str, Any]]) -> list[Param]:
    """Each is used or not, of those that say which weights are judged one at most, and one that heals where there is
    something to heal."""
    params, others_off, operated = list[Param](), dict[str, tuple[Value, ...]](), _operated(chosen)
    for name, each in chosen["technique"].items():
        when, judges = operated if each.heals else {}, "judged" in each.touches
        if when is not None:
            params += _optional(f"technique/{name}", each, {**when, **(others_off if judges else {})})
            others_off |= {f"technique/{name}/use": (False,)} if judges else {}
    return params


def _operated(chosen: Mapping[str, Mapping[str, Any]]) -> Conditions | None:
    """Where a pretrained model has other attention than its own; None where it never has."""
    models = tuple(name for name, each in chosen["backbone"].items() if each.pretrained)
    cores = {name: each for name, each in chosen["attention"].items() if not issubclass(each, AttentionModifier)}
    others = tuple(name for name, each in cores.items() if each.neutral != {})
    modified = len(cores) < len(chosen["attention"])
    if not models or not (others or modified):
        return None
    when: Conditions = {} if len(models) == len(chosen["backbone"]) else {"model/kind": models}
    return when if modified or len(others) == len(cores) else {**when, "attention/kind": others}


def _backbones(backbones: Mapping[str, type[Plugin]]) -> list[Param]:
    params = [Param("model/kind", Choice(*backbones), {})]
    seen: dict[str, Param] = {}
    for kind, cls in backbones.items():
        for name, each in ranges(cls).items():
            full = f"model/{name}" if name in SHARED_BY_BACKBONES else f"model/{kind}/{name}"
            kinds = (*seen[full].when["model/kind"], kind) if full in seen else (kind,)
            seen[full] = Param(full, each, {"model/kind": kinds})
    return [*params, *seen.values()]


def _tuning(chosen: Mapping[str, Mapping[str, type[Plugin]]]) -> list[Param]:
    """What of a pretrained backbone learns."""
    kinds = tuple(name for name, each in chosen["backbone"].items() if getattr(each, "pretrained", False))
    if not kinds:
        return []
    kind, *others = _one_of("tuning", chosen)
    return [replace(kind, when={"model/kind": kinds}), *others]


def _one_of(kind: str, chosen: Mapping[str, Mapping[str, type[Plugin]]]) -> list[Param]:
    params = [Param(f"{kind}/kind", Choice(*chosen[kind]), {})]
    for name, cls in chosen[kind].items():
        params += [Param(f"{kind}/{name}/{at}", each, {f"{kind}/kind": (name,)}) for at, each in ranges(cls).items()]
    return params


def _optional(prefix: str, cls: type, when: Conditions) -> list[Param]:
    use = Param(f"{prefix}/use", Choice(False, True), when)
    inner = {**when, f"{prefix}/use": (True,)}
    return [use, *(Param(f"{prefix}/{name}", each, inner) for name, each in ranges(cls).items())]
