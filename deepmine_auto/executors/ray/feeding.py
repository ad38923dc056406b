"""What feeds Tune: a searcher that hands out the agenda's work, and a scheduler that hands it what workers say."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from deepmine_auto.executors.resources import Resources
from deepmine_auto.messages import Because, Ended, Saved, from_plain
from deepmine_auto.study.agenda import Agenda
from deepmine_auto.study.history import Key
from deepmine_auto.training.ends import broken_in

LOOK_SECONDS = 1.0
"""So often the agenda is asked what hangs."""

LATE_SECONDS = 30.0
"""So long may a worker be silent once its time is over: it may judge what it has learned."""

PAUSE_SECONDS = 30.0
"""Where so long passes between two looks, this process stood still, or its machine did, and nobody was heard."""

WAITING_SECONDS = 60.0
"""After so long it is told that trials wait for a worker: others may use the cluster, and would do so for ever."""

LOW_ON_MEMORY = "Ray ended it, because its machine ran low on memory"


def _error_of(trial: Any) -> str:
    """What Tune has written of a failure: at once on this machine, and later where `get_error` looks."""
    file = trial.error_file
    return Path(file).read_text(errors="replace") if file and Path(file).exists() else ""


class Unshared:
    """Tune copies and pickles searchers and schedulers; ours stand for the one ledger, so they stay what they are."""

    def __deepcopy__(self, _memo: object) -> Any:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {}


class AgendaSearcher(Unshared, Searcher):  # type: ignore[misc]
    """Hands the agenda's assignments to Tune, at most so many. Tune's trials have ids of their own: lost work gets a
    new one."""

    def __init__(self, agenda: Agenda, resources: Resources, most: int) -> None:
        super().__init__()
        self.agenda, self.resources, self.most = agenda, resources, most
        self.keys: dict[str, Key] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next assignment; None: ask again; FINISHED: all is done, or this Tuner has done its share."""
        if self.most and (assignment := self.agenda.next()):
            self.most -= 1
            self.keys[trial_id] = assignment.key
            asked = replace(assignment, processes=self.resources.processes)
            return {"assignment": asked.to_json(), "cores": self.resources.cores}
        over = self.agenda.done if self.most else not self.agenda.running
        return Searcher.FINISHED if over else None

    def gone(self, trial_id: str, because: Because, why: str) -> None:
        """Say that a worker is gone, once: its work is handed out again."""
        if key := self.keys.pop(trial_id, None):
            self.agenda.lost(key, because, why)

    def broke(self, trial_id: str, why: str, plugin: str | None) -> None:
        """Say that a worker's GPU is broken. The first time that may be the GPU's fault; a second time it is that of
        the plugin which ran, if one did."""
        key = self.keys.get(trial_id)
        if key and plugin and self.agenda.lost_before(key):
            self.keys.pop(trial_id)
            self.agenda.heard(key, Ended("plugin", reason=why, plugin=plugin))
        else:
            self.gone(trial_id, "lost", why)

    def all_gone(self, why: str) -> None:
        """Say that all workers are gone."""
        for trial_id in list(self.keys):
            self.gone(trial_id, "lost", why)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Hear of an end. The scheduler has already written it, unless the worker was lost."""
        if error:
            self.gone(trial_id, "lost", "its process ended")
        self.keys.pop(trial_id, None)

    def save(self, checkpoint_path: str) -> None:
        """Keep nothing: the database has it."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing was kept."""


class AgendaScheduler(Unshared, TrialScheduler):  # type: ignore[misc]
    """Hands workers' messages to the agenda, and verdicts to Tune: a result that stops never reaches the searcher."""

    def __init__(self, searcher: AgendaSearcher, tick: Callable[[], None]) -> None:
        super().__init__()
        self.searcher, self.tick = searcher, tick
        self.looked = time.monotonic()
        self.waits_since: float | None = None
        self.told_waiting = False

    def on_trial_result(self, _controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        """Write the message, and say whether the trial goes on."""
        key = self.searcher.keys.get(trial.trial_id)
        if key is None:  # it was given up while its message was on the way
            return str(TrialScheduler.CONTINUE)
        message = from_plain(json.loads(result["message"]))
        keep = self.searcher.agenda.heard(key, message)
        if isinstance(message, Saved) and message.leaves:
            self.searcher.gone(trial.trial_id, "preempted", "its machine was told to stop")
        self.tick()
        return str(TrialScheduler.CONTINUE if keep else TrialScheduler.STOP)

    def choose_trial_to_run(self, controller: Any) -> Any:
        """Return a pending trial; each has a worker of its own, so the order does not matter. Tune asks at each turn,
        so this is where what hangs is ended."""
        trials = controller.get_trials()
        if time.monotonic() - self.looked > LOOK_SECONDS:
            self._look(controller, {each.trial_id: each for each in trials if each.trial_id in self.searcher.keys})
        return next((each for each in trials if each.status == "PENDING"), None)

    def _look(self, controller: Any, trials: Mapping[str, Any]) -> None:
        """End the workers that hang, and what is overdue. What waits for a worker does not hang: there may be fewer
        than there were."""
        agenda, keys, before = self.searcher.agenda, self.searcher.keys, self.looked
        self.looked = time.monotonic()
        if self.looked - before > PAUSE_SECONDS:
            agenda.excuse(before)
        self._end_overdue(controller, trials)
        waiting = [each for each, trial in trials.items() if trial.status == "PENDING" and each in keys]
        for trial_id in waiting:
            agenda.heard_at[keys[trial_id]] = self.looked
        self._tell_waiting(len(waiting))
        hung = dict(agenda.hung())
        for trial_id in [each for each, key in keys.items() if key in hung]:
            ray.kill(trials[trial_id].temporary_state.ray_actor)
            self.searcher.gone(trial_id, "hung", hung[keys[trial_id]])

    def _tell_waiting(self, waiting: int) -> None:
        """Write an event where trials have waited for long, once until none does."""
        self.waits_since = (self.waits_since or self.looked) if waiting else None
        long = self.waits_since is not None and self.looked - self.waits_since > WAITING_SECONDS
        if long and not self.told_waiting and ray.is_initialized():
            free = ray.available_resources()
            left = f"{free.get('GPU', 0):g} GPUs and {free.get('CPU', 0):g} cores"
            told = f"{waiting} of what was begun wait for workers: {left} of Ray are free, and others may have the rest"
            self.searcher.agenda.ledger.event("waiting", told)
        self.told_waiting = long

    def _end_overdue(self, controller: Any, trials: Mapping[str, Any]) -> None:
        """A worker says something every two seconds, and is then told to stop; not one that there is none of."""
        agenda, keys, overdue = self.searcher.agenda, self.searcher.keys, self.searcher.agenda.overdue()
        for trial_id in [each for each, key in keys.items() if each in trials and key in overdue]:
            waits, silent = trials[trial_id].status == "PENDING", self.looked - agenda.heard_at[keys[trial_id]]
            if waits or silent > LATE_SECONDS:
                agenda.give_up(keys.pop(trial_id))
                if waits:
                    controller.stop_trial(trials[trial_id])
                else:
                    ray.kill(trials[trial_id].temporary_state.ray_actor)

    def on_trial_add(self, controller: Any, trial: Any) -> None:
        """Hear of a new trial, which the searcher knows already."""

    def on_trial_error(self, controller: Any, trial: Any) -> None:
        """Hear of a lost worker. The searcher hears of it next, but not why. One that Ray ends for memory may have been
        in the way of another; one that has lost a worker before is taken to be too large itself."""
        key, error = self.searcher.keys.get(trial.trial_id), _error_of(trial)
        if key and "low on memory" in error:
            again = self.searcher.agenda.lost_before(key)
            self.searcher.gone(trial.trial_id, "memory" if again else "lost", LOW_ON_MEMORY)
        if broken := broken_in(error):
            self.searcher.broke(trial.trial_id, *broken)

    def on_trial_complete(self, controller: Any, trial: Any, result: Mapping[str, Any]) -> None:
        """Hear of an end, which was written when its message came."""

    def on_trial_remove(self, controller: Any, trial: Any) -> None:
        """Hear that a trial was taken away before it ran."""

    def debug_string(self) -> str:
        """What Tune would print."""
        return "deepmine-auto"
