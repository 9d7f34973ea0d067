"""Images of registries, asked for at their mirrors first, and once in a run."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from nox_variants.errors import ImageUnavailable
from nox_variants.images.leaving import until_cancelled
from nox_variants.images.mirrors import Asking, places
from nox_variants.images.reference import address, parse_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from nox_variants.images.content import Blobs, Descriptor, ImageContent
    from nox_variants.images.mirrors import Place
    from nox_variants.images.registry import Registries
    from nox_variants.model import Mirrors

    _Answer = tuple[tuple[Place, ...], ImageContent]

_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")


class Remote:
    """The registries of a run, with their mirrors.

    Threads may share it.

    Args:
        environ: The environment, for proxies and docker's configuration.
        progress: Told what takes long.
        cancelled: Ends every transfer.
        host: ``linux/amd64``: the platform of images.
        mirrors: What is asked before an image's own registry.
    """

    def __init__(
        self,
        *,
        environ: Mapping[str, str],
        progress: Callable[[str], None],
        cancelled: threading.Event,
        host: str,
        mirrors: Mirrors,
    ) -> None:
        self._environ = environ
        self._progress = progress
        self._cancelled = cancelled
        self._host = host
        self._mirrors = mirrors
        self._asking = Asking(progress=progress, cancelled=cancelled)
        self._lock = threading.Lock()
        self._opened: Registries | None = None
        self._unknown: set[str] = set()
        self._turns: dict[tuple[str, bool], threading.Lock] = {}
        self._answers: dict[tuple[str, bool], _Answer] = {}

    def image(self, reference: str, *, insecure: bool) -> tuple[ImageContent, Blobs]:
        """Return what an image consists of, and what gives its layers.

        Args:
            reference: The image, by tag or by digest.
            insecure: Whether its own registry is asked in plain http.

        Raises:
            ImageUnavailable: Its registry cannot be reached from here, and no mirror has it.
            ImageError: Its registry refused or failed, and no mirror has it.
        """
        key = (reference, insecure)
        with self._lock:
            turn = self._turns.setdefault(key, threading.Lock())
        with turn:
            if key not in self._answers:
                self._answers[key] = self._ask(reference, insecure=insecure)
        left, content = self._answers[key]
        return content, _Layers(self._asking, self._registries, reference, left, self._cancelled)

    def _ask(self, reference: str, *, insecure: bool) -> _Answer:
        asked = places(reference, self._mirrors, insecure=insecure)

        def get(place: Place) -> ImageContent:
            self._check_known(place.reference)
            found = self._registries
            return until_cancelled(
                self._cancelled,
                lambda: found.image(place.reference, self._host, insecure=place.insecure),
            )

        number, content = self._asking.first(reference, asked, get)
        return asked[number:], content

    def _check_known(self, reference: str) -> None:
        """Refuse a registry whose name leads nowhere from here: the usual way to be offline.

        That takes no HTTP client, which is 0.1 s to load. A proxy would look names up itself.
        """
        registry = parse_reference(reference).registry
        reason = f"registry {registry} cannot be reached from here"
        with self._lock:
            if registry not in self._unknown and not _leads_nowhere(registry, self._environ):
                return
            if registry not in self._unknown:
                self._unknown.add(registry)
                self._progress(reason)
        raise ImageUnavailable(f"{reference}: {reason}")

    @property
    def _registries(self) -> Registries:
        from nox_variants.images.registry import Registries  # noqa: PLC0415  # few runs pull

        with self._lock:
            self._opened = self._opened or Registries(
                environ=self._environ, progress=self._progress, cancelled=self._cancelled
            )
            return self._opened


@dataclass(frozen=True, slots=True)
class _Layers:
    """The layers of an image: of who told of it, else of those behind it (content.Blobs)."""

    asking: Asking
    registries: Registries
    reference: str
    places: tuple[Place, ...]
    cancelled: threading.Event

    def fetch(self, layer: Descriptor, file: Path) -> None:
        """Write a layer into a new file, verified: by its digest it is the same everywhere.

        Raises:
            ImageError: It cannot be had, or is not what its digest says.
            OSError: The file cannot be written.
        """

        def get(place: Place) -> None:
            blobs = self.registries.blobs(place.reference, insecure=place.insecure)
            until_cancelled(self.cancelled, lambda: blobs.fetch(layer, file))

        self.asking.first(self.reference, self.places, get)


def _leads_nowhere(registry: str, environ: Mapping[str, str]) -> bool:
    if any(environ.get(name) or environ.get(name.lower()) for name in _PROXIES):
        return False
    host = urlsplit(address(registry, insecure=False)).hostname
    try:
        socket.getaddrinfo(host, None)
    except socket.gaierror:
        return True
    except (OSError, UnicodeError):
        return False
    return False
