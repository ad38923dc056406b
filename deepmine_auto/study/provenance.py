"""What a study was begun with, and whether that still holds: its plugins, its libraries, its rows."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from deepmine_auto.data.kept import digest
from deepmine_auto.errors import BadInput
from deepmine_auto.host import Host
from deepmine_auto.pretrained.choosing import contents_of, origins_of
from deepmine_auto.space import Space, Value
from deepmine_auto.storage import tables
from deepmine_auto.storage.store import Row, Store, StudyRow
from deepmine_auto.study.ledger import Ledger

Plugin = tuple[str, str]
"""A kind and a name."""
ALWAYS = ("task", "sampler", "pruner")
"""What no search space chooses."""


# -- what is recorded ------------------------------------------------------------------------------------------------


def record_plugins(ledger: Ledger, host: Host) -> None:
    """Write which plugins the study may use from here on, where they differ from what is written, and tell what else
    has changed since the study began: the same seed may now find something else."""
    for each in [*_changed_versions(ledger.study), *_changed_plugins(ledger, host)]:
        ledger.event("changed", each)
    known = plugins_in_use(ledger)
    for kind, name in sorted(may_use(ledger.study, ledger.space)):
        brought = host.brought(kind, name)
        if known.get((kind, name)) == brought.hash:
            continue
        row: Row = {"kind": kind, "name": name, "since": len(ledger.trials), "hash": brought.hash}
        row |= {"distribution": brought.distribution, "version": brought.version}
        ledger.store.put(tables.plugins, ledger.study.id, row)
        ledger.plugins.append(row)


def plugins_in_use(ledger: Ledger) -> dict[Plugin, str]:
    """The recorded plugins that new trials may use, and the hash that holds now."""
    recorded = _recorded(ledger.store, ledger.study)
    return {each: recorded[each]["hash"] for each in may_use(ledger.study, ledger.space) if each in recorded}


def _recorded(store: Store, study: StudyRow) -> dict[Plugin, Row]:
    rows = sorted(store.rows(tables.plugins, study.id), key=lambda row: int(row["since"]))
    return {(row["kind"], row["name"]): row for row in rows}


def _changed_versions(study: StudyRow) -> list[str]:
    then: Mapping[str, str] = study.spec.get("versions", {})
    now = {name: _version(name) for name in then}
    return [
        f"{name} was {then[name]} when the study began, and is {now[name]}" for name in then if now[name] != then[name]
    ]


def _version(name: str) -> str:
    if name == "python":
        return platform.python_version()
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _changed_plugins(ledger: Ledger, host: Host) -> list[str]:
    changed = [each for each, was in sorted(plugins_in_use(ledger).items()) if host.brought(*each).hash != was]
    return [f"the {kind} '{name}' is another one than the study began with" for kind, name in changed]


def may_use(study: StudyRow, space: Space) -> set[Plugin]:
    """Every plugin that a study needs, or that its space may draw."""
    found = {(each, str(study.spec[each])) for each in ALWAYS}
    kinds = {f"{kind}/kind": kind for kind in ("attention", "tuning", "optimizer", "schedule")}
    kinds |= {"placement/hybrid/kind": "attention", "model/kind": "backbone"}
    for param in space.params:
        first, _, rest = param.name.partition("/")
        if param.name in kinds:
            found |= {(kinds[param.name], str(each)) for each in getattr(param.range, "options", ())}
        elif rest.endswith("/use") and True in getattr(param.range, "options", ()):
            found.add((first, rest.removesuffix("/use")))
    return found | _fixed(space.fixed, kinds)


def _fixed(fixed: Mapping[str, Value], kinds: Mapping[str, str]) -> set[Plugin]:
    named = {(kinds[name], str(value)) for name, value in fixed.items() if name in kinds}
    uses = (name.split("/") for name, value in fixed.items() if name.endswith("/use") and value is True)
    return named | {(first, plugin) for first, plugin, _ in uses}


# -- what a resume checks --------------------------------------------------------------------------------------------


def check(store: Store, study: StudyRow, space: Space, host: Host) -> None:
    """Refuse to go on without a plugin that the study needs, or on other rows than it began with. Raises BadInput."""
    known = _recorded(store, study)
    for kind, name in sorted(may_use(study, space)):
        _check_plugin(study, (kind, name), known.get((kind, name)), host)
    _check_rows(study)


def _check_plugin(study: StudyRow, plugin: Plugin, row: Row | None, host: Host) -> None:
    try:
        host.brought(*plugin)
    except BadInput as error:
        what = f"The study '{study.name}' needs the {plugin[0]} '{plugin[1]}': {error.what}"
        again = f"Install {row['distribution']} {row['version']}" if row else "Install its distribution"
        without = f", or go on without it: deepmine-auto resume {study.typed} --space FILE"
        raise BadInput(what, f"{again}{'.' if plugin[0] in ALWAYS else without}") from error


def _check_rows(study: StudyRow) -> None:
    kept = study.spec.get("kept")  # studies of schema 0001 have none
    if kept is None:
        return
    try:
        same = digest(Path(study.folder)) == kept
    except OSError as error:
        raise BadInput(
            f"The rows of the study '{study.name}' cannot be read: {error}.", "Restore its folder."
        ) from error
    if not same:
        what = f"The rows in {study.folder} are not those that the study '{study.name}' began with."
        raise BadInput(what, "Restore its folder, or begin another study.")


def checked_originals(study: StudyRow, space: Space) -> dict[str, str]:
    """What the folders of the study's pretrained models held when it began to use them, those included that the space
    brings now. Raises BadInput where one holds something else today."""
    then: dict[str, str] = study.spec.get("originals", {})  # older studies do not tell
    now = contents_of(space)
    for each in origins_of(space):
        if each in then and now.get(each) != then[each]:
            what = f"The model in {each} is not the one that the study '{study.name}' began with."
            raise BadInput(what, "Restore its folder, or begin another study.")
    return {**now, **then}


def unavailable(study: StudyRow, params: Mapping[str, Value], host: Host) -> str:
    """Why a trial with these params cannot be trained, rerun or exported here; empty where it can."""
    from deepmine_auto.model.assemble import plugins_of

    for kind, name in plugins_of(study.spec["task"], params):
        if name not in host.offered(kind):
            return f"its {kind} '{name}' is not installed"
    return ""
