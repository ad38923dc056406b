"""How a user named a database: messages and commands name the same option again."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Said:
    """A place, with the file that named it as that was typed; None where --storage or the environment did."""

    said_in: str | None = field(default=None, kw_only=True, compare=False, repr=False)

    @property
    def option(self) -> str:
        """The option that names it, or would."""
        return "--storage" if self.said_in is None else "--storage-file"
