"""Whether the surroundings are fit for a search: one finding a matter, each with what to do about it."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, NamedTuple

from packaging.version import Version

from deepmine_auto.contracts import KINDS
from deepmine_auto.errors import DeepmineError
from deepmine_auto.executors.resources import cores_here
from deepmine_auto.host import Host
from deepmine_auto.storage.place import Place

State = Literal["ok", "warning", "fault"]

GIB = 2**30
MEMORY_GIB = 2.0
DISK_GIB = 2.0
SHARED_MEMORY_GIB = 0.5

FLOORS = {
    "torch": "2.10",
    "transformers": "5.2.1",
    "optuna": "5.0",
    "ray": "2.56",
    "sqlalchemy": "2.0.40",
    "click": "8.2",
}
"""Below these versions a library has a fault that matters here: of safety, or of the study database."""

PYTHON_FLOORS = {11: "3.11.13", 12: "3.12.11", 13: "3.13.4"}
"""The first releases whose `tarfile` refuses to write outside its folder."""

EXTRAS = {"optuna-dashboard": "dashboard", "pytest": "test", "hypothesis": "test"}


class Finding(NamedTuple):
    """What was looked at, how it stands, and the remedy where it is not ok."""

    what: str
    state: State
    found: str
    fix: str = ""


def diagnose(storage: Place, host: Host) -> Iterator[Finding]:
    """Look at everything, the cheap things first. Nothing is left behind."""
    yield python(platform.python_version())
    yield from libraries()
    yield accelerators()
    yield cores(cores_here())
    yield memory(_meminfo("MemAvailable"))
    yield space("shared memory", Path("/dev/shm"), SHARED_MEMORY_GIB, "Ray falls back to disk: give it --shm-size.")
    yield space("disk", existing(storage.folder), DISK_GIB, "Free some space, or choose another --storage.")
    yield database(storage)
    yield ray()
    yield plugins(host)
    yield from extras()


def python(found: str) -> Finding:
    """The version of Python."""
    floor = PYTHON_FLOORS.get(Version(found).minor)
    if Version(found) < Version("3.11"):
        return Finding("python", "fault", found, "Use Python 3.11 or later.")
    if floor and Version(found) < Version(floor):
        return Finding("python", "warning", found, f"Unpacking archives is unsafe before {floor}: upgrade Python.")
    return Finding("python", "ok", found)


def libraries() -> Iterator[Finding]:
    """The libraries that have a lowest version."""
    for name, floor in FLOORS.items():
        found = _version(name)
        if found is None:
            yield Finding(name, "fault", "not installed", "Install it: pip install deepmine-auto.")
        elif Version(found) < Version(floor):
            yield Finding(name, "fault", found, f"Upgrade it: pip install '{name}>={floor}'.")
        else:
            yield Finding(name, "ok", found)


def accelerators() -> Finding:
    """GPUs as torch sees them, with their free memory."""
    try:
        import torch
    except Exception as error:  # a broken CUDA library raises whatever it likes
        return Finding("gpu", "fault", _first(error), "Install torch again for this machine: https://pytorch.org.")
    if not torch.cuda.is_available():
        return Finding("gpu", "ok", "none, trials run on the processor")
    named = []
    for each in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(each)
        named.append(f"{torch.cuda.get_device_name(each)} {free / GIB:.1f} of {total / GIB:.1f} GiB free")
    return Finding("gpu", "ok", ", ".join(named))


def cores(count: int) -> Finding:
    """Processor cores that this process may use."""
    if count == 1:
        return Finding("cores", "warning", "1", "One trial runs at a time.")
    return Finding("cores", "ok", str(count))


def memory(free: int | None) -> Finding:
    """Free memory in bytes."""
    if free is None:
        return Finding("memory", "ok", "this system does not say")
    found = f"{free / GIB:.1f} GiB free"
    if free < MEMORY_GIB * GIB:
        return Finding("memory", "warning", found, "Each worker takes about 0.5 GiB: use fewer with --workers.")
    return Finding("memory", "ok", found)


def space(what: str, folder: Path, least: float, fix: str) -> Finding:
    """Free space of the filesystem that holds a folder."""
    if not folder.is_dir():
        return Finding(what, "warning", f"there is no {folder}", fix)
    free = shutil.disk_usage(folder).free / GIB
    return Finding(
        what, "warning" if free < least else "ok", f"{free:.1f} GiB free at {folder}", fix if free < least else ""
    )


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(each for each in (folder, *folder.parents) if each.is_dir())


def database(storage: Place) -> Finding:
    """Whether studies can be written and read."""
    try:
        return Finding("storage", "ok", f"{storage} ({storage.look()})")
    except DeepmineError as error:
        return Finding("storage", "fault", error.what, error.remedy)


def ray() -> Finding:
    """Whether Ray Tune can be imported."""
    return _tried("ray tune", _import_tune, "Install it again: pip install 'ray[tune]'. Until then: --executor inline.")


def _import_tune() -> str:
    import_module("deepmine_auto.executors.ray")
    return version("ray")


def _tried(what: str, work: Callable[[], str], fix: str) -> Finding:
    try:
        return Finding(what, "ok", work())
    except Exception as error:  # whatever an import raises is what we want to know
        return Finding(what, "fault", _first(error), fix)


def plugins(host: Host) -> Finding:
    """Whether every installed plugin can be used."""
    count = sum(len(host.offered(kind)) for kind in (*KINDS, "command"))
    if host.broken:
        first = host.broken[0]
        found = f"{len(host.broken)} set aside, the first: {first.what}: {first.why}"
        return Finding("plugins", "warning", found, "See `deepmine-auto plugins list`.")
    return Finding("plugins", "ok", str(count))


def extras() -> Iterator[Finding]:
    """Libraries that some commands need."""
    for name, extra in EXTRAS.items():
        found = _version(name)
        fix = "" if found else f"If you want it: pip install 'deepmine-auto[{extra}]'."
        yield Finding(name, "ok" if found else "warning", found or "not installed", fix)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _meminfo(name: str, place: str = "/proc/meminfo") -> int | None:
    try:
        rows = [line.split() for line in Path(place).read_text().splitlines()]
    except OSError:
        return None
    return next((int(row[1]) * 1024 for row in rows if row and row[0] == f"{name}:"), None)


def _first(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


class Unfit(DeepmineError):
    """The surroundings have a fault."""
