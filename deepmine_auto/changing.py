"""What of a study may change when it goes on: its budget, its search space, and where it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from deepmine_auto.contracts import Task
from deepmine_auto.data.kept import SEARCH, extra_of, rows_of
from deepmine_auto.host import Host
from deepmine_auto.planning.request import WORKERS, check_workers
from deepmine_auto.planning.searchable import space_over
from deepmine_auto.pretrained.choosing import chosen_in, kept_origins, longest_reader, options_of
from deepmine_auto.space import FIDELITY, Space
from deepmine_auto.space_file.adding import reading_longest, with_learners
from deepmine_auto.space_file.asked_for import KIND, asked_for, refuse_idle
from deepmine_auto.space_file.reading import SpaceFile, bundled, read_space
from deepmine_auto.storage.store import StudyRow
from deepmine_auto.study.budget import Budget, seconds_of
from deepmine_auto.study.spaces import Spaces
from deepmine_auto.training.prepared import prepared_by

NOWHERE = {
    "gpus": None, "gpus_per_trial": None, "workers": None, "pin_workers": False, "address": None,
    "insecure_cluster": False,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a user may change of a study when it goes on; each field is an option of `deepmine-auto resume`.

    Budgets count from the study's beginning; one that is given replaces all of them. Where trials run may change too:
    the cluster that a study began on may be gone.
    """

    trials: int | None = None
    time_budget: str | float | None = None
    max_gpu_hours: float | None = None
    space: str | None = None
    attention: Sequence[str] | str = ()
    tuning: Sequence[str] | str = ()
    technique: Sequence[str] | str = ()
    gpus: int | None = None
    gpus_per_trial: float | None = None
    workers: int | None = None
    pin_workers: bool = False
    executor: str | None = None
    address: str | None = None
    insecure_cluster: bool = False

    def on(self, before: Mapping[str, Any]) -> dict[str, Any]:
        """Where trials run from here on, as it stands in a study's specification. Raises BadInput."""
        asked = {name: getattr(self, name) for name in WORKERS}
        given = {name: value for name, value in asked.items() if value is not None and value is not False}
        if "executor" in given or "address" in given:  # another place has its own number of workers
            before = {**before, **NOWHERE, "executor": "ray"}  # which joins clusters
        on = {**before, **given}
        if given:
            check_workers(on)
        return on

    @property
    def another_space(self) -> bool:
        """Whether a search space is given."""
        return self.space is not None or any((self.attention, self.tuning, self.technique))

    @property
    def budget(self) -> Budget:
        """The new budget; nothing is limited where none is given. Raises BadInput."""
        seconds = None if self.time_budget is None else seconds_of(str(self.time_budget))
        return Budget(self.trials, seconds, self.max_gpu_hours).check()


def respaced(study: StudyRow, spaces: Spaces, change: Change, host: Host) -> tuple[str, Space, tuple[str, ...]]:
    """The name and search space with which a study goes on, and what was left out of it. Raises BadInput."""
    if not change.another_space:
        return spaces.name_now, spaces.now, ()
    task = host.get("task", study.spec["task"])
    file, left_out = _file(spaces, change, task, host), list[str]()
    if change.space and not _agrees(file, study):
        left_out.append(f"sampler, pruner and budget of {file.where} are not used: a study keeps its own")
    given = [name for name, each in extra_of(Path(study.folder))._asdict().items() if each]
    file = with_learners(file, given, host)
    refuse_idle(file, change, host)
    train, validation = (rows_of(Path(study.folder), SEARCH, part) for part in ("train", "validation"))
    prepared = prepared_by(reading_longest(file, task), longest_reader(file, host), train)
    on = change.on({**NOWHERE, "executor": "ray", **study.spec.get("workers", {})})
    unchecked, seen = study.spec.get("unchecked", False), [*train.inputs, *validation.inputs]
    found = space_over(file, task, prepared, seen, host, unchecked=unchecked, here=not on["address"])
    return file.name, as_much_read(found.space, spaces.now), (*left_out, *found.left_out)


def as_much_read(space: Space, before: Space) -> Space:
    """A space whose trials read as many rows as those of the one before, unless it says how many by itself."""
    kept = {name: value for name, value in before.fixed.items() if name == FIDELITY}
    return space if FIDELITY in {each.name for each in space.params} else replace(space, fixed={**kept, **space.fixed})


def _agrees(file: SpaceFile, study: StudyRow) -> bool:
    """Whether a file asks for what the study has anyway."""
    asked = {"sampler": file.sampler, "pruner": file.pruner, "budget": asdict(file.budget)}
    return all(study.spec.get(name) == each for name, each in asked.items())


def _file(spaces: Spaces, change: Change, task: type[Task], host: Host) -> SpaceFile:
    """The new file, or the one that the study has, with its backbones, tunings and techniques; with what is asked for
    instead or beside, and the study's pretrained models."""
    own = spaces.name_now.removesuffix(".toml")
    file = read_space(change.space or (own if own in bundled() else spaces.name_now))
    if change.space:
        return kept_origins(asked_for(file, change, task, host), spaces.now)
    file = asked_for(asked_for(file, _asked_before(spaces.now, file), task, host), change, task, host)
    return kept_origins(chosen_in(spaces.now).over(file, host), spaces.now)


def _asked_before(space: Space, file: SpaceFile) -> Change:
    """The tunings of a space, and the techniques that the file which it was made of does not name."""
    names = (name.split("/") for name in (*space.fixed, *(each.name for each in space.params)))
    techniques = [each[1] for each in names if each[0] == "technique" and each[-1] == "use"]
    own = file.plugins.get("technique", ())
    return Change(tuning=options_of(space, KIND), technique=[each for each in techniques if each not in own])
