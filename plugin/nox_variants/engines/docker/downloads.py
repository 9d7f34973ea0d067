"""What a daemon pulls: at mirrors first, tried again where that may help, and told about."""

from __future__ import annotations

import itertools
import re
import threading
import time
from typing import TYPE_CHECKING, Any

from nox_variants.engines.docker.answers import heard
from nox_variants.engines.docker.connection import DaemonError, explained
from nox_variants.errors import ImageError, ImageUnavailable
from nox_variants.images import transient
from nox_variants.images.mirrors import Asking, Place, places
from nox_variants.images.patience import Patience
from nox_variants.images.reference import HUB, is_named_host
from nox_variants.images.transient import (
    LATER,
    LIMIT,
    LOOK,
    TransientError,
    answered,
    duration,
    tried,
)
from nox_variants.images.transport import PATIENCE, TRIES, backoff, login_hint
from nox_variants.results import EngineName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from nox_variants.engines.docker.connection import Daemon
    from nox_variants.model import Mirrors

_EVERY = 2.0
"""Seconds between two notes on how far a pull is."""

_LATER_PATIENT = (5, 5)
"""The version of Podman that asks again itself after 502, 503 and 504 (containers/common 2378)."""

_DENIED = re.compile(r"unauthorized|denied|authentication", re.IGNORECASE)
_MISSING = re.compile(r"not found|manifest unknown", re.IGNORECASE)


class Downloads:
    """The pulls of a run.

    Args:
        daemon: The daemon.
        mirrors: What is asked for images before their own registries.
        progress: Told how far it is.
        cancelled: Ends a pull.
        environ: The environment, for proxies.
    """

    def __init__(
        self,
        *,
        daemon: Daemon,
        mirrors: Mirrors,
        progress: Callable[[str], None],
        cancelled: threading.Event,
        environ: Mapping[str, str],
    ) -> None:
        self._daemon = daemon
        self._mirrors = mirrors
        self._progress = progress
        self._cancelled = cancelled
        self._asking = Asking(progress=progress, cancelled=cancelled)
        self._patience = Patience(environ, cancelled)
        self._lock = threading.Lock()
        self._unreachable: dict[str, str] = {}

    def pull(self, name: str, reference: str, *, insecure: bool = False) -> Place:
        """Have an image in the daemon, and return by which reference it has it.

        Args:
            name: The image's name, for messages.
            reference: What is pulled.
            insecure: Whether its registry speaks plain http, as far as the file says so.

        Raises:
            ImageUnavailable: Its registry cannot be reached from here, and no mirror has it.
            ImageError: The registry refused or failed, and no mirror has it.
        """
        asked = places(reference, self._mirrors, insecure=insecure)

        def get(place: Place) -> None:
            self._pull(name, place)

        number, _ = self._asking.first(name, asked, get)
        return asked[number]

    def _pull(self, name: str, place: Place) -> None:
        registry = _registry(place.reference)
        with self._lock:
            known = self._unreachable.get(registry)
        if known:
            raise ImageUnavailable(f"{name}: {known}")
        self._progress(f"{name}: pulling {place.reference}")
        left = PATIENCE
        for attempt in itertools.count(1):
            try:
                self._attempt(name, registry, place.reference)
            except ImageError as error:
                why = transient.sign(error.message)
                if not why or attempt == TRIES or self._waits_itself(why):
                    raise self._failure(name, registry, error, tried(attempt)) from error
                wanted = self._patience.asked(place)
                seconds = backoff(attempt) if wanted is None else wanted
                if seconds > left:
                    times = f"{tried(attempt)}, asks to wait {duration(seconds)}"
                    raise self._failure(name, registry, error, times) from error
            else:
                return
            left -= seconds
            self._wait(f"{name}: {place.reference}: {why}", seconds)

    def _waits_itself(self, why: str) -> bool:
        """Tell whether the daemon has had the patience already: Podman's asks several times."""
        info = self._daemon.info
        if info.name is not EngineName.PODMAN:
            return False
        version = tuple(map(int, re.findall(r"[0-9]+", info.version)[:2]))
        gateways = {answered(status) for status in (502, 503, 504)}
        return why == LIMIT or (version >= _LATER_PATIENT and why in gateways)

    def _wait(self, what: str, seconds: float) -> None:
        if seconds:
            self._progress(f"{what}, waiting {duration(seconds)}")
        if self._cancelled.wait(seconds):
            raise DaemonError("cancelled")

    def _attempt(self, name: str, registry: str, reference: str) -> None:
        what = f"{name}: {reference} cannot be pulled"
        with explained(what, ImageError):
            self._follow(name, what, self._lines(f"{name}: no word of {registry} for", reference))

    def _lines(self, silence: str, reference: str) -> Iterator[dict[str, Any]]:
        """Yield what the daemon says of a pull; one that says nothing can be left all the same."""
        pull, (name, tag) = self._daemon.client.api.pull, name_and_tag(reference)
        return heard(
            lambda: pull(name, tag, stream=True, decode=True),
            self._cancelled,
            lambda seconds: self._progress(f"{silence} {duration(seconds)}"),
        )

    def _follow(self, name: str, what: str, lines: Iterator[dict[str, Any]]) -> None:
        """Say now and then how far it is."""
        layers: dict[str, tuple[int, int]] = {}
        said = time.monotonic()
        for line in lines:
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
        self, name: str, registry: str, error: ImageError, times: str
    ) -> ImageError | ImageUnavailable:
        why = transient.sign(error.message)
        hint = _hint(registry, error.message)
        if why:
            times = "podman tried again itself" if self._waits_itself(why) else times
            text = f"{error.message.rstrip('.')} ({times})"
            return TransientError(text, hint=hint or LATER)
        if transient.is_out_of_reach(error.message):
            reason = f"registry {registry} cannot be reached from here"
            with self._lock:
                if registry not in self._unreachable:
                    self._progress(reason)
                self._unreachable[registry] = reason
            return ImageUnavailable(f"{name}: {reason}")
        return ImageError(error.message, hint=hint)


def _hint(registry: str, said: str) -> str:
    """Return what to do about a daemon's words."""
    if transient.sign(said) == LIMIT:
        return f"Log in ({login_hint(registry)}), or wait: that is a limit."
    if _DENIED.search(said):
        return f"{login_hint(registry)}, and again."
    return LOOK if _MISSING.search(said) else ""


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
