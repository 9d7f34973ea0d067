"""What a daemon pulls: at mirrors first, tried again where that may help, and told about."""

from __future__ import annotations

import itertools
import re
import threading
import time
from typing import TYPE_CHECKING, Any

from nox_variants.engines.docker.connection import DaemonError, explained
from nox_variants.errors import ImageError, ImageUnavailable
from nox_variants.images import transient
from nox_variants.images.mirrors import Asking, Place, places
from nox_variants.images.reference import HUB, is_named_host
from nox_variants.images.transient import LATER, TransientError, duration, tried
from nox_variants.images.transport import TRIES, backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nox_variants.engines.docker.connection import Daemon
    from nox_variants.model import Mirrors

_EVERY = 2.0
"""Seconds between two notes on how far a pull is."""

_HINTS = (
    (re.compile(r"unauthorized|denied|authentication", re.IGNORECASE), "docker login, and again."),
    (re.compile(r"toomanyrequests|rate limit", re.IGNORECASE), "Log in, or wait: that is a limit."),
    (re.compile(r"not found|manifest unknown", re.IGNORECASE), "Is the reference right?"),
)


class Downloads:
    """The pulls of a run.

    Args:
        daemon: The daemon.
        mirrors: What is asked for images before their own registries.
        progress: Told how far it is.
        cancelled: Ends a pull.
    """

    def __init__(
        self,
        *,
        daemon: Daemon,
        mirrors: Mirrors,
        progress: Callable[[str], None],
        cancelled: threading.Event,
    ) -> None:
        self._daemon = daemon
        self._mirrors = mirrors
        self._progress = progress
        self._cancelled = cancelled
        self._asking = Asking(progress=progress, cancelled=cancelled)
        self._lock = threading.Lock()
        self._unreachable: dict[str, str] = {}

    def pull(self, name: str, reference: str) -> Place:
        """Have an image in the daemon, and return by which reference it has it.

        Args:
            name: The image's name, for messages.
            reference: What is pulled.

        Raises:
            ImageUnavailable: Its registry cannot be reached from here, and no mirror has it.
            ImageError: The registry refused or failed, and no mirror has it.
        """
        asked = places(reference, self._mirrors)

        def get(place: Place) -> None:
            self._pull(name, place.reference)

        number, _ = self._asking.first(name, asked, get)
        return asked[number]

    def _pull(self, name: str, reference: str) -> None:
        registry = _registry(reference)
        with self._lock:
            known = self._unreachable.get(registry)
        if known:
            raise ImageUnavailable(f"{name}: {known}")
        self._progress(f"{name}: pulling {reference}")
        for attempt in itertools.count(1):
            try:
                self._attempt(name, reference)
            except ImageError as error:
                why = transient.sign(error.message)
                if not why or attempt == TRIES:
                    raise self._failure(name, registry, error, attempt) from error
            else:
                return
            self._wait(f"{name}: {reference}: {why}", backoff(attempt))

    def _wait(self, what: str, seconds: float) -> None:
        self._progress(f"{what}, waiting {duration(seconds)}")
        if self._cancelled.wait(seconds):
            raise DaemonError("cancelled")

    def _attempt(self, name: str, reference: str) -> None:
        what = f"{name}: {reference} cannot be pulled"
        with explained(what, ImageError):
            lines = self._daemon.client.api.pull(*name_and_tag(reference), stream=True, decode=True)
            self._follow(name, what, lines)

    def _follow(self, name: str, what: str, lines: Iterator[dict[str, Any]]) -> None:
        """Say now and then how far it is."""
        layers: dict[str, tuple[int, int]] = {}
        said = time.monotonic()
        for line in lines:
            if self._cancelled.is_set():
                raise DaemonError("cancelled")
            if error := line.get("error"):
                raise ImageError(f"{what}: {' '.join(str(error).split())}")
            detail = line.get("progressDetail") or {}
            if line.get("status") == "Downloading" and detail.get("total"):
                layers[str(line.get("id"))] = (int(detail["current"]), int(detail["total"]))
            if layers and time.monotonic() > said + _EVERY:
                said = time.monotonic()
                current, total = (sum(parts) for parts in zip(*layers.values(), strict=True))
                self._progress(f"{name}: pulling, {current / 1e6:.0f} of {total / 1e6:.0f} MB")

    def _failure(
        self, name: str, registry: str, error: ImageError, attempts: int
    ) -> ImageError | ImageUnavailable:
        hint = next((hint for sign, hint in _HINTS if sign.search(error.message)), "")
        if transient.sign(error.message):
            text = f"{error.message.rstrip('.')} ({tried(attempts)})"
            return TransientError(text, hint=hint or LATER)
        if transient.is_out_of_reach(error.message):
            reason = f"registry {registry} cannot be reached from here"
            with self._lock:
                if registry not in self._unreachable:
                    self._progress(reason)
                self._unreachable[registry] = reason
            return ImageUnavailable(f"{name}: {reason}")
        return ImageError(error.message, hint=hint)


def _registry(reference: str) -> str:
    """Return the host of a reference; docker.io when it names none (distribution/reference)."""
    first, slash, _ = reference.partition("/")
    return first if slash and is_named_host(first) else HUB


def name_and_tag(reference: str) -> tuple[str, str]:
    """Return what the API wants apart: a digest takes a tag's place."""
    if "@" in reference:
        name, _, digest = reference.partition("@")
        return name, digest
    name, colon, tag = reference.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (reference, "latest")
