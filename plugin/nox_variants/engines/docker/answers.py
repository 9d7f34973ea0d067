"""Answers of a daemon that take long: read beside whoever waits for them, who may stop to."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from nox_variants.engines.docker.connection import DaemonError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from requests import Response

_POLL = 0.1
"""Seconds between two looks whether the wait has to end."""


def lines(ask: Callable[[], Response], cancelled: threading.Event) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of an answer as they come, one per line.

    A daemon that is paused or hangs says nothing and closes nothing: what waits for its words, or
    for it to take ours, cannot be woken. So that is done by a thread, which is left behind then.

    Args:
        ask: Sends the request; the answer is one that is streamed.
        cancelled: Ends the wait, and the connection, which tells the daemon.

    Raises:
        DaemonError: It was cancelled.
        docker.errors.APIError: The daemon refuses.
        Exception: What `ask` and the connection raise.
    """
    reading = _Reading(ask)
    threading.Thread(target=reading.run, name="nox-variants-answer", daemon=True).start()
    try:
        while True:
            if cancelled.is_set():
                raise DaemonError("cancelled")
            with suppress(Empty):
                found = reading.found.get(timeout=_POLL)
                if found is None:
                    return
                if isinstance(found, Exception):
                    raise found
                yield found
    finally:
        reading.stop()


class _Reading:
    """One answer.

    Attributes:
        found: Its objects; in the end None, or what went wrong.
    """

    def __init__(self, ask: Callable[[], Response]) -> None:
        self.found: SimpleQueue[dict[str, Any] | Exception | None] = SimpleQueue()
        self._ask = ask
        self._lock = threading.Lock()
        self._answer: Response | None = None
        self._stopped = False

    def run(self) -> None:
        try:
            with self._ask() as answer:
                if self._takes(answer):
                    _check(answer)
                    for line in answer.iter_lines():
                        if line:
                            self.found.put(json.loads(line))
        except Exception as error:  # noqa: BLE001  # raised where it is waited for
            self.found.put(error)
        else:
            self.found.put(None)

    def _takes(self, answer: Response) -> bool:
        with self._lock:
            self._answer = answer
            return not self._stopped

    def stop(self) -> None:
        """Close the connection, if there is one by now."""
        from docker.types import CancellableStream  # noqa: PLC0415  # with the SDK

        with self._lock:
            self._stopped = True
            if self._answer is not None:
                with suppress(Exception):  # it is closed already, or ssh's, which ends with us
                    CancellableStream(iter(()), self._answer).close()


def _check(answer: Response) -> None:
    from docker.errors import create_api_error_from_http_exception  # noqa: PLC0415  # with the SDK
    from requests.exceptions import HTTPError  # noqa: PLC0415

    try:
        answer.raise_for_status()
    except HTTPError as error:
        create_api_error_from_http_exception(error)
