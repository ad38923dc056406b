"""What every node must have in common with the driver's: the same plugins, and sight of the study's folder."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from deepmine_auto.errors import BadInput
from deepmine_auto.host import the_host

Hashes = Mapping[tuple[str, str], str]


class Answer(NamedTuple):
    """What a node says: the hash of each plugin that it has, and what it reads in the driver's file."""

    hashes: dict[tuple[str, str], str]
    read: str | None


def refuse_unlike(expected: Hashes, folder: Path) -> None:
    """Ask every other node, once. Raises BadInput naming one with another plugin, or one that does not see `folder`.

    `expected` maps the kind and name of a plugin to the hash of its file.
    """
    others = _others()
    with _nonce(folder) as file:
        remote, text = ray.remote(answer), file.read_text()
        asked = [remote.options(num_cpus=0, scheduling_strategy=_at(each)).remote(list(expected), file)
                 for each in others]  # fmt: skip
        for node, reference in zip(others, asked, strict=True):
            name = str(node["NodeManagerHostname"])
            _compare(name, _answer_of(name, reference), expected, text, folder)


def refuse_unseen(folder: Path) -> None:
    """Ask every other node whether it sees `folder`. Raises BadInput naming one that does not."""
    refuse_unlike({}, folder)


def answer(asked: list[tuple[str, str]], file: Path) -> Answer:
    """Answer on the node that runs this; a plugin that is not there is left out."""
    offered = {kind: the_host().offered(kind) for kind, _ in asked}
    hashes = {(kind, name): offered[kind][name].hash for kind, name in asked if name in offered[kind]}
    return Answer(hashes, file.read_text() if file.exists() else None)


def _others() -> list[dict[str, Any]]:
    """The nodes beside the driver's where trials may run."""
    here = ray.get_runtime_context().get_node_id()
    return [each for each in ray.nodes() if each["Alive"] and each["NodeID"] != here and _works(each["Resources"])]


def _works(has: Mapping[str, float]) -> bool:
    return bool(has.get("CPU") or has.get("GPU"))


def _at(node: Mapping[str, Any]) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)


def _answer_of(node: str, reference: Any) -> Answer:
    try:
        found: Answer = ray.get(reference)
    except RayError as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[-1].rstrip(".")
        what = f"The node {node} cannot run trials: {why}."
        raise BadInput(what, "Install the driver's distributions there, and try again.") from error
    return found


def _compare(node: str, found: Answer, expected: Hashes, text: str, folder: Path) -> None:
    for (kind, name), hashed in sorted(expected.items()):
        if found.hashes.get((kind, name)) != hashed:
            what = f"The {kind} '{name}' on node {node} is not the driver's."
            raise BadInput(what, "Install the same distribution there, and try again.")
    if found.read != text:
        raise BadInput(f"The node {node} does not see {folder}.", "Give --output on a path that all nodes share.")


@contextmanager
def _nonce(folder: Path) -> Iterator[Path]:
    """A file in the study's folder that nobody can guess. Raises BadInput where it cannot be written."""
    file = folder / f".seen-{secrets.token_hex(8)}"
    try:
        try:
            file.write_text(secrets.token_hex(32))
        except OSError as error:
            raise BadInput(f"{folder} cannot be written: {error.strerror}.", "Give another --output.") from error
        yield file
    finally:
        file.unlink(missing_ok=True)
