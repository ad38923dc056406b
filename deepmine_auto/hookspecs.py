"""Every way to extend deepmine-auto, on one page.

A plugin distribution names one light module of hook implementations, its door, as an entry point of group
`deepmine_auto`. Hooks return strings `module:Class`; the host imports each one when a command needs it.
"""

from collections.abc import Iterable

import pluggy

PROJECT = "deepmine_auto"
"""The entry point group, and the name that hookimpl and hookspec carry."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def attentions() -> Iterable[str]:  # type: ignore[empty-body]
    """Attention variants: cores, modifiers, mixers. Called when a search, a check or a listing begins."""


@hookspec
def tasks() -> Iterable[str]:  # type: ignore[empty-body]
    """Tasks: data, head, loss, scores. Called when a search, a prediction or a listing begins."""


@hookspec
def backbones() -> Iterable[str]:  # type: ignore[empty-body]
    """Backbones: the stack around attention. Called when a search, a prediction or a listing begins."""


@hookspec
def tunings() -> Iterable[str]:  # type: ignore[empty-body]
    """What of a pretrained model learns. Called when a search, a prediction or a listing begins."""


@hookspec
def optimizers() -> Iterable[str]:  # type: ignore[empty-body]
    """Gradient optimizers; what proposes params is a sampler. Called when a search or a listing begins."""


@hookspec
def schedules() -> Iterable[str]:  # type: ignore[empty-body]
    """How the learning rate goes on after warm-up. Called when a search or a listing begins."""


@hookspec
def techniques() -> Iterable[str]:  # type: ignore[empty-body]
    """What changes training. Called when a search or a listing begins."""


@hookspec
def samplers() -> Iterable[str]:  # type: ignore[empty-body]
    """What proposes params. Called when a search or a listing begins."""


@hookspec
def pruners() -> Iterable[str]:  # type: ignore[empty-body]
    """What stops hopeless trials. Called when a search or a listing begins."""


@hookspec
def commands() -> Iterable[str]:  # type: ignore[empty-body]
    """Subcommands of `deepmine-auto`, as `module:click_command`. Called at every start: import nothing heavy."""
