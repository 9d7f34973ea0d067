"""What a daemon says for long: heard beside whoever waits for it, who may stop to at any moment."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from nox_variants.engines.docker.connection import DaemonError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from requests import Response

_POLL = 0.1
"""Seconds between two looks whether the wait has to end."""

_SILENCE = 10.0
"""Seconds without a word that are told of; then twice as many."""

_T = TypeVar("_T")


def heard(
    words: Callable[[], Iterable[_T]],
    cancelled: threading.Event,
    silent: Callable[[float], object] = lambda _: None,
) -> Iterator[_T]:
    """Yield what a daemon says, as it comes.

    One that is paused or hangs says nothing and closes nothing: who waits for its words, or for it
    to take ours, cannot be woken. So a thread does that, which is left behind then.

    Args:
        words: Asks, and returns what is said.
        cancelled: Ends the wait.
        silent: Told for how many seconds nothing was said, when that is long.

    Raises:
        DaemonError: It was cancelled.
        BaseException: What `words` raises.
    """
    inbox: SimpleQueue[tuple[_T] | BaseException | None] = SimpleQueue()

    def listen() -> None:
        try:
            for each in words():
                inbox.put((each,))
        except BaseException as error:  # noqa: BLE001  # raised where it is waited for
            inbox.put(error)
        else:
            inbox.put(None)

    threading.Thread(target=listen, name="nox-variants-answer", daemon=True).start()
    last, longest = time.monotonic(), _SILENCE
    while not cancelled.is_set():
        try:
            found = inbox.get(timeout=_POLL)
        except Empty:
            if time.monotonic() > last + longest:
                silent(longest)
                longest *= 2
            continue
        if found is None:
            return
        if isinstance(found, BaseException):
            raise found
        yield found[0]
        last, longest = time.monotonic(), _SILENCE
    raise DaemonError("cancelled")


class Answer:
    """An answer of JSON objects, one per line; closed, it tells the daemon that its client is gone.

    Args:
        ask: Sends the request; the answer is one that is streamed.
    """

    def __init__(self, ask: Callable[[], Response]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._response: Response | None = None
        self._closed = False

    def lines(self) -> Iterator[dict[str, Any]]:
        """Ask, and yield the objects.

        Raises:
            docker.errors.APIError: The daemon refuses.
            Exception: What `ask` and the connection raise.
        """
        with self._ask() as response:
            with self._lock:
                self._response = response
                if self._closed:
                    return
            try:
                _check(response)
                yield from (json.loads(line) for line in response.iter_lines() if line)
            finally:
                with self._lock:
                    self._response = None

    def close(self) -> None:
        """Shut the connection down, if there is one by now: who waits for its words closes it."""
        with self._lock:
            self._closed = True
            if self._response is not None:
                with suppress(OSError, ValueError, AttributeError):  # ssh's, which ends with us
                    _shut_down(self._response.raw.fileno())


def _shut_down(handle: int) -> None:
    with socket.socket(fileno=os.dup(handle)) as twin:
        twin.shutdown(socket.SHUT_RDWR)


def hang_up(stream: Any) -> None:
    """Close what the SDK gives for an attached container; nobody reads it any more.

    Left to the garbage collector, socket and response are closed in any order, and Python 3.14
    tells of a response that was the later one.
    """
    with suppress(OSError, ValueError):
        getattr(stream, "_response", stream).close()  # the SDK keeps it there in all its streams


def _check(response: Response) -> None:
    from docker.errors import create_api_error_from_http_exception  # noqa: PLC0415  # with the SDK
    from requests.exceptions import HTTPError  # noqa: PLC0415

    try:
        response.raise_for_status()
    except HTTPError as error:
        create_api_error_from_http_exception(error)
