"""Work aside, in a thread that nobody has to wait for: it ends with the process."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def aside(work: Callable[[], T]) -> Future[T]:
    """Begin work; what it returns, or raises, is in the future."""
    future: Future[T] = Future()
    Thread(target=_carry_out, args=(future, work), daemon=True).start()
    return future


def _carry_out(future: Future[T], work: Callable[[], T]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:  # sys.exit and Rust panics in a plugin must not end the host either
        future.set_exception(error)
