"""What a search space file makes of the ranges that plugins declare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from deepmine_auto.errors import BadInput
from deepmine_auto.space import Choice, Float, Name, Param, Range, Value


def narrowed(
    params: Iterable[Param], wishes: Mapping[str, Any], where: str
) -> tuple[tuple[Param, ...], dict[str, Value]]:
    """Apply a file's `[ranges]`: `{low, high}` or a list narrows, a single value fixes. Raises BadInput."""
    kept, fixed = [], {}
    for param in params:
        wish = wishes.get(param.name)
        if wish is None:
            kept += [_known_range(param, where)] if getattr(param.range, "searched", True) else []
        elif isinstance(wish, list | dict):
            kept.append(Param(param.name, _narrow(param, wish, where), param.when))
        elif param.when and param.name.endswith(("/kind", "/use")):  # without its condition it would hold for all
            kept.append(Param(param.name, Choice(_inside(param, wish, where)), param.when))
        else:
            fixed[param.name] = _inside(param, wish, where)
    return tuple(kept), fixed


def _known_range(param: Param, where: str) -> Param:
    if isinstance(param.range, Name):
        raise BadInput(f"{where} does not say '{param.name}'.", f"Give {param.range}, in [ranges] or by its option.")
    return param


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
    if isinstance(param.range, Choice | Name):
        raise BadInput(f"{where}: '{param.name}' takes a list.", f"Give some of: {param.range}.")
    odd = set(wish) - {"low", "high"}
    if odd:
        raise BadInput(f"{where}: '{param.name}' has the unknown key '{min(odd)}'.", "Use low and high.")
    low = _inside(param, wish.get("low", param.range.low), where)
    high = _inside(param, wish.get("high", param.range.high), where)
    if low > high:  # type: ignore[operator]
        raise BadInput(f"{where}: the range of '{param.name}' is empty: {low} to {high}.", f"Give {param.range}.")
    return type(param.range)(**{**asdict(param.range), "low": low, "high": high})
