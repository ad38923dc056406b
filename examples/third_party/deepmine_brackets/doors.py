"""The door: what this package brings, as strings."""

from collections.abc import Iterable

from deepmine_auto import hookimpl


@hookimpl
def attentions() -> Iterable[str]:
    """One attention variant."""
    return ("deepmine_brackets.l2:L2",)


@hookimpl
def tasks() -> Iterable[str]:
    """One task."""
    return ("deepmine_brackets.brackets:Brackets",)


@hookimpl
def optimizers() -> Iterable[str]:
    """One optimizer."""
    return ("deepmine_brackets.signum:Signum",)
