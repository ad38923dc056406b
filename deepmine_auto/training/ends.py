"""Whatever happens inside a training becomes a message that says what stopped it, and who is to blame."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from types import TracebackType

import torch

from deepmine_auto.errors import DeepmineError, first_line
from deepmine_auto.host import Host
from deepmine_auto.messages import Assignment, Ended, Message, Reported
from deepmine_auto.model.assemble import plugins_of
from deepmine_auto.model.guard import Refused
from deepmine_auto.objectives import COSTS

NO_MEMORY = ("can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED")
"""What torch, CUDA, cuBLAS, cuDNN, Triton and NCCL say; cuBLAS does not begin on a GPU that is full."""

BROKEN, RAN = "The GPU cannot be used by this process any more", ", which ran "
AGAIN = "Run it again; with a search, deepmine-auto resume goes on."


STAYS = (
    "device-side assert", "illegal memory access", "illegal instruction", "invalid program counter", "unknown error",
    "misaligned address", "launch failure", "launch timed out", "hardware stack error", "ECC error", "unavailable",
)  # fmt: skip
"""What CUDA says of faults after which every call fails, whoever makes it."""


class DeviceBroken(DeepmineError):
    """Such a fault: the process has to end. `plugin` is whose code was running, where that is known."""

    def __init__(self, told: str, plugin: str | None) -> None:
        super().__init__(f"{BROKEN}{f'{RAN}{plugin}' if plugin else ''}: {told}.", AGAIN)
        self.told, self.plugin = told, plugin

    def __reduce__(self) -> tuple[type[DeviceBroken], tuple[str, str | None]]:
        """Workers send it to their driver."""
        return type(self), (self.told, self.plugin)

    def end(self) -> Ended:
        """The end of the trial in which it came."""
        return Ended("plugin" if self.plugin else "error", reason=self.what, plugin=self.plugin)


def broken_in(text: str) -> tuple[str, str | None] | None:
    """What such a fault says somewhere in a text, and the plugin that it names; None where there is none."""
    _, found, said = text.rpartition(BROKEN)
    plugin = said.partition(":")[0].removeprefix(RAN) if said.startswith(RAN) else None
    return (f"{BROKEN}{said.partition(AGAIN)[0]}".strip(), plugin) if found else None


REASON_BYTES = 4096
"""So much of a traceback's end is kept in a trial's row."""


def guarded(begin: Callable[[], Iterator[Message]], assignment: Assignment, host: Host) -> Iterator[Message]:
    """Yield the messages of what `begin` returns, and its end where it raises. Ctrl-C alone passes through, and
    DeviceBroken: no other training may begin in this process."""
    last: Reported | None = None
    try:
        for message in begin():
            last = message if isinstance(message, Reported) else last
            yield message
        return
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # user code may raise anything, sys.exit and Rust panics included
        if broken := _broken_device(error):
            raise DeviceBroken(broken, _blamed(error.__traceback__, assignment, host)) from error
        end = _ended(error, assignment, host, last)
    yield end  # out here the error is gone, and with it the memory that its frames held


def _ended(error: BaseException, assignment: Assignment, host: Host, last: Reported | None) -> Ended:
    reason = "".join(traceback.format_exception(error))[-REASON_BYTES:]
    facts = _facts(last) if last else {}
    if out_of_memory(error):
        return Ended("memory", reason=reason, facts=facts)
    if isinstance(error, Refused):  # the params ask for what cannot be; whoever passed them on is not to blame
        return Ended("plugin", reason=reason, facts=facts)
    plugin = _blamed(error.__traceback__, assignment, host)
    return Ended("plugin" if plugin else "error", reason=reason, plugin=plugin, facts=facts)


def _broken_device(error: BaseException) -> str:
    """What CUDA says of a fault that stays with a process until its end; empty where it is another error."""
    told = first_line(error)
    return told if "CUDA error" in told and any(each in told for each in STAYS) else ""


def _facts(last: Reported) -> dict[str, float]:
    return {"seconds": last.seconds, **{name: last.metrics[name] for name in COSTS if name in last.metrics}}


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is too little memory."""
    told = str(error)  # on a CPU, and where CUDA or cuBLAS begin, torch raises a RuntimeError
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(each in told for each in NO_MEMORY)


def _blamed(frames: TracebackType | None, assignment: Assignment, host: Host) -> str | None:
    """The `kind/name` of the plugin whose file stands deepest in the traceback, or None."""
    modules = {}
    for kind, name in plugins_of(assignment.task, assignment.params):
        if name in host.offered(kind):
            modules[host.get(kind, name).__module__] = f"{kind}/{name}"
    blamed = None
    while frames is not None:
        blamed = modules.get(frames.tb_frame.f_globals.get("__name__", ""), blamed)
        frames = frames.tb_next
    return blamed
