"""The search space: ranges, the params that plugins bring, and what a TOML file chooses and narrows.

A param has a slash-separated name (`attention/sliding_window/window`), a range, and conditions: it exists only where
other params have certain values. Names never change meaning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from deepmine_auto.contracts import AttentionCore, AttentionModifier, Plugin
from deepmine_auto.errors import BadInput

if TYPE_CHECKING:
    import optuna

T = TypeVar("T")
Value = bool | int | float | str


@dataclass(frozen=True)
class Int:
    """Whole numbers from `low` to `high`, both included."""

    low: int
    high: int
    log: bool = False
    step: int = 1

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
    """One of some options: strings, numbers or booleans."""

    options: tuple[Value, ...]

    def __init__(self, *options: Value) -> None:
        object.__setattr__(self, "options", options)

    def __contains__(self, value: object) -> bool:
        return any(value == each and type(value) is type(each) for each in self.options)

    def __str__(self) -> str:
        return f"one of {', '.join(map(str, self.options))}"

    def suggest(self, trial: optuna.Trial, name: str) -> Value:
        """Draw a value from an Optuna trial."""
        drawn = trial.suggest_categorical(name, self.options)
        assert drawn is not None
        return drawn


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
        """Add what is fixed, which a worker must know and a row need not repeat."""
        return {**self.fixed, **drawn}

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


def _range_from(kind: str, values: Mapping[str, Any]) -> Range:
    if kind == "Choice":
        return Choice(*values["options"])
    return Int(**values) if kind == "Int" else Float(**values)


def ranges(cls: type) -> dict[str, Range]:
    """The searched fields of a plugin class and their ranges, in the order of the class."""
    hints = get_type_hints(cls, include_extras=True)
    found = {}
    for each in fields(cls):
        for mark in getattr(hints[each.name], "__metadata__", ()):
            if isinstance(mark, Int | Float | Choice):
                found[each.name] = mark
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
    params = [*_attention(chosen["attention"]), *_backbones(chosen["backbone"]), *_one_of("optimizer", chosen)]
    for name, technique in chosen["technique"].items():
        params += _optional(f"technique/{name}", technique, {})
    for prefix, cls in always.items():
        params += [Param(f"{prefix}/{name}", each, {}) for name, each in ranges(cls).items()]
    return tuple(params)


def _attention(variants: Mapping[str, type[Plugin]]) -> list[Param]:
    modifiers = {name: each for name, each in variants.items() if issubclass(each, AttentionModifier)}
    kinds = {name: each for name, each in variants.items() if name not in modifiers}
    params = _one_of("attention", {"attention": kinds})
    cores = tuple(name for name, each in kinds.items() if issubclass(each, AttentionCore))
    if cores:
        for name, modifier in modifiers.items():
            params += _optional(f"attention/{name}", modifier, {"attention/kind": cores})
    return params


def _backbones(backbones: Mapping[str, type[Plugin]]) -> list[Param]:
    params = [Param("model/kind", Choice(*backbones), {})]
    seen: dict[str, Param] = {}
    for kind, cls in backbones.items():
        for name, each in ranges(cls).items():
            full = f"model/{name}" if name in SHARED_BY_BACKBONES else f"model/{kind}/{name}"
            kinds = (*seen[full].when["model/kind"], kind) if full in seen else (kind,)
            seen[full] = Param(full, each, {"model/kind": kinds})
    return [*params, *seen.values()]


def _one_of(kind: str, chosen: Mapping[str, Mapping[str, type[Plugin]]]) -> list[Param]:
    params = [Param(f"{kind}/kind", Choice(*chosen[kind]), {})]
    for name, cls in chosen[kind].items():
        params += [Param(f"{kind}/{name}/{at}", each, {f"{kind}/kind": (name,)}) for at, each in ranges(cls).items()]
    return params


def _optional(prefix: str, cls: type, when: Conditions) -> list[Param]:
    use = Param(f"{prefix}/use", Choice(False, True), when)
    inner = {**when, f"{prefix}/use": (True,)}
    return [use, *(Param(f"{prefix}/{name}", each, inner) for name, each in ranges(cls).items())]


# -- what a file narrows ---------------------------------------------------------------------------------------------


def narrowed(
    params: Iterable[Param], wishes: Mapping[str, Any], where: str
) -> tuple[tuple[Param, ...], dict[str, Value]]:
    """Apply a file's `[ranges]`: `{low, high}` or a list narrows, a single value fixes. Raises BadInput."""
    kept, fixed = [], {}
    for param in params:
        wish = wishes.get(param.name)
        if wish is None:
            kept.append(param)
        elif isinstance(wish, list | dict):
            kept.append(Param(param.name, _narrow(param, wish, where), param.when))
        else:
            fixed[param.name] = _inside(param, wish, where)
    return tuple(kept), fixed


def _inside(param: Param, value: Any, where: str) -> Value:
    if isinstance(param.range, Float) and type(value) is int:
        value = float(value)
    if value not in param.range:
        raise BadInput(f"{where}: '{param.name}' is {value!r}.", f"It must be {param.range}.")
    return value  # type: ignore[no-any-return]


def _narrow(param: Param, wish: Any, where: str) -> Range:
    if isinstance(wish, list):
        if not wish:
            raise BadInput(f"{where}: the range of '{param.name}' is empty.", f"Give some of: {param.range}.")
        return Choice(*(_inside(param, each, where) for each in wish))
    if isinstance(param.range, Choice):
        raise BadInput(f"{where}: '{param.name}' takes a list.", f"Give some of: {param.range}.")
    odd = set(wish) - {"low", "high"}
    if odd:
        raise BadInput(f"{where}: '{param.name}' has the unknown key '{min(odd)}'.", "Use low and high.")
    low = _inside(param, wish.get("low", param.range.low), where)
    high = _inside(param, wish.get("high", param.range.high), where)
    if low > high:  # type: ignore[operator]
        raise BadInput(f"{where}: the range of '{param.name}' is empty: {low} to {high}.", f"Give {param.range}.")
    return type(param.range)(**{**asdict(param.range), "low": low, "high": high})
