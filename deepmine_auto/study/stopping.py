"""Stop a study that nobody works on any more: what its driver left RUNNING gets an end."""

from __future__ import annotations

from deepmine_auto.host import Host
from deepmine_auto.storage.place import Place, held
from deepmine_auto.study.history import Key
from deepmine_auto.study.ledger import Ledger
from deepmine_auto.study.provenance import unavailable

REASON = "stopped by `deepmine-auto studies stop`"


def stop_study(place: Place, name: str, host: Host, reason: str = REASON) -> list[Key]:
    """End whatever runs, and return what was cancelled; `resume` then searches on with new trials.

    Raises StudyHeld where a driver is alive, BadInput where the study's sampler or pruner is gone.
    """
    with held(place, name) as (store, fence):
        study = store.study(name)
        plugins = host.get("sampler", study.spec["sampler"])(), host.get("pruner", study.spec["pruner"])()
        ledger = Ledger(store, study, fence, plugins, lambda *_: None, fence.regain)
        ledger.able_here = lambda number: not unavailable(study, ledger.params(number), host)
        cancelled = ledger.cancel(reason)
        if cancelled:
            ledger.event("stopped", f"{', '.join(f'{kind} {number}' for kind, number in cancelled)}: {reason}")
        ledger.writer.settle()
    return cancelled
