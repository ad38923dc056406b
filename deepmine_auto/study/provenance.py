"""Which plugins a study may use: distribution, version and hash, written from the trial on from which they hold."""

from __future__ import annotations

from collections.abc import Mapping

from deepmine_auto.host import Host
from deepmine_auto.space import Value
from deepmine_auto.storage import tables
from deepmine_auto.storage.store import Row
from deepmine_auto.study.ledger import Ledger


def record_plugins(ledger: Ledger, host: Host) -> None:
    """Write which plugins the study may use from here on, where they differ from what is written."""
    known = {(row["kind"], row["name"]): row["hash"] for row in ledger.store.rows(tables.plugins, ledger.study.id)}
    for kind, name in sorted(_may_use(ledger)):
        brought = host.brought(kind, name)
        if known.get((kind, name)) == brought.hash:
            continue
        if (kind, name) in known:
            ledger.event("plugin changed", f"the {kind} '{name}' is another one than the study began with")
        row: Row = {"kind": kind, "name": name, "since": len(ledger.trials), "hash": brought.hash}
        row |= {"distribution": brought.distribution, "version": brought.version}
        ledger.store.add(tables.plugins, ledger.study.id, row)


def plugins_in_use(ledger: Ledger) -> dict[tuple[str, str], str]:
    """The kind and name of every recorded plugin, and the hash that holds now."""
    rows = sorted(ledger.store.rows(tables.plugins, ledger.study.id), key=lambda row: int(row["since"]))
    return {(row["kind"], row["name"]): row["hash"] for row in rows}


def _may_use(ledger: Ledger) -> set[tuple[str, str]]:
    spec = ledger.study.spec
    found = {("task", spec["task"]), ("sampler", spec["sampler"]), ("pruner", spec["pruner"])}
    kinds = {"attention/kind": "attention", "model/kind": "backbone", "optimizer/kind": "optimizer"}
    for param in ledger.space.params:
        first, _, rest = param.name.partition("/")
        if param.name in kinds:
            found |= {(kinds[param.name], str(each)) for each in getattr(param.range, "options", ())}
        elif rest.endswith("/use"):
            found.add((first, rest.removesuffix("/use")))
    return found | _fixed(ledger.space.fixed, kinds)


def _fixed(fixed: Mapping[str, Value], kinds: Mapping[str, str]) -> set[tuple[str, str]]:
    named = {(kinds[name], str(value)) for name, value in fixed.items() if name in kinds}
    uses = (name.split("/") for name, value in fixed.items() if name.endswith("/use") and value is True)
    return named | {(first, plugin) for first, plugin, _ in uses}
