"""Work that waits for others: it is left when the run ends, whatever it waits for."""

from __future__ import annotations

import threading
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, TypeVar

from nox_variants.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")

_POLL = 0.1
"""Seconds between two looks at whether the run has been cancelled."""

_GRACE = 0.5
"""Seconds that work gets to notice that by itself, and to tidy up."""


def until_cancelled(cancelled: threading.Event, work: Callable[[], _T]) -> _T:
    """Return what work gives, or raise what it raises.

    Args:
        cancelled: Ends the wait. The work goes on in a thread that keeps no process alive.
        work: What may block.

    Raises:
        ImageError: The run was cancelled, and the work did not notice.
    """
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001  # handed to the thread that waits
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    while not wait([future], _POLL).done:
        if cancelled.is_set() and not wait([future], _GRACE).done:
            raise ImageError("cancelled")
    return future.result()
