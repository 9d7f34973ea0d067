"""Mirrors: which references an image is asked for by, in which order, and what is said meanwhile.

An image keeps its own name, whoever gives it.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from nox_variants.errors import ImageError, ImageUnavailable
from nox_variants.images.reference import Reference, parse_reference
from nox_variants.images.transient import LOOK, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from nox_variants.model import Mirror, Mirrors

    _Failure = ImageError | ImageUnavailable

_T = TypeVar("_T")

_DIGEST = re.compile("sha256:[0-9a-f]+")

EVERY = "*"
"""What stands for every registry that has no mirrors of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an image is asked for.

    Attributes:
        reference: ``mirror.example.com/hub/library/ubuntu:24.04``.
        mirror: ``mirror.example.com/hub``; empty for the image's own registry.
        insecure: Whether it is asked in plain http.
    """

    reference: str
    mirror: str = ""
    insecure: bool = False


def places(reference: str, mirrors: Mirrors, *, insecure: bool = False) -> tuple[Place, ...]:
    """Return where an image is asked for, in order: at its mirrors, then at its own registry.

    What is no reference is asked for as it is: who is asked says what is wrong with it.

    Args:
        reference: The image, by tag or by digest.
        mirrors: The mirrors of all registries.
        insecure: Whether its own registry is asked in plain http.
    """
    own = Place(reference=reference, insecure=insecure)
    try:
        named = parse_reference(reference)
    except ImageError:
        return (own,)
    found = {_at(mirror, named): mirror for mirror in _of(named.registry, mirrors)}
    found.pop(f"{named.registry}/{_image(named)}", None)
    asked = (
        Place(reference=text, mirror=_name(mirror), insecure=mirror.insecure)
        for text, mirror in found.items()
    )
    return (*asked, own)


def _of(registry: str, mirrors: Mirrors) -> Iterable[Mirror]:
    """Return a registry's mirrors: its own, else those of all, without itself."""
    by_registry = dict(mirrors)
    if registry in by_registry:
        return by_registry[registry]
    return (each for each in by_registry.get(EVERY, ()) if each.host != registry)


def _at(mirror: Mirror, named: Reference) -> str:
    return f"{_name(mirror)}/{_image(named)}"


def _name(mirror: Mirror) -> str:
    return f"{mirror.host}/{mirror.prefix}" if mirror.prefix else mirror.host


def _image(named: Reference) -> str:
    """Return an image without its registry; a digest is enough, and not every tool takes both."""
    tag = f"@{named.digest}" if named.digest else f":{named.tag}"
    return f"{named.repository}{tag}"


class Asking:
    """How the mirrors of a run are asked: what failed is said once, and the next one is asked.

    Threads may share it.

    Args:
        progress: Told which mirror did not give an image.
        cancelled: Ends it.
    """

    def __init__(self, *, progress: Callable[[str], None], cancelled: threading.Event) -> None:
        self._progress = progress
        self._cancelled = cancelled
        self._lock = threading.Lock()
        self._failed: set[str] = set()
        self._said: set[tuple[str, str]] = set()

    def first(
        self, about: str, asked: Sequence[Place], get: Callable[[Place], _T]
    ) -> tuple[int, _T]:
        """Return who was the first to give something, as its number, and what.

        A mirror that failed in a way that may pass, but did not, is not asked again in the run:
        every image would wait for it.

        Args:
            about: The image, for messages; those of errors may begin with it.
            asked: Where it is asked for; the last one is its own registry.
            get: Asks there.

        Raises:
            ImageUnavailable: Its own registry cannot be reached, and no mirror has it.
            ImageError: Its own registry refused or failed, and no mirror has it.
        """
        for number, place in enumerate(asked[:-1]):
            if not self._is_passed_over(place):
                try:
                    return number, get(place)
                except (ImageError, ImageUnavailable) as error:
                    self._note(about, place, error)
        try:
            return len(asked) - 1, get(asked[-1])
        except (ImageError, ImageUnavailable) as error:
            if len(asked) == 1 or self._cancelled.is_set():
                raise
            tried = ", ".join(each.mirror for each in asked[:-1])
            text = f"{error.message.rstrip('.')} (mirrors tried: {tried})"
            raise type(error)(text, hint=error.hint) from error

    def _is_passed_over(self, place: Place) -> bool:
        with self._lock:
            return place.mirror in self._failed

    def _note(self, about: str, place: Place, error: _Failure) -> None:
        """Say what came of a mirror, each thing once; one out of reach was said by who asked."""
        if self._cancelled.is_set():
            raise error
        for_good = isinstance(error, TransientError)
        why = error.message.removeprefix(f"{about}: ").rstrip(".")
        same = (place.mirror, _DIGEST.sub("", why.replace(place.reference, "")))
        with self._lock:
            known = same in self._said or place.mirror in self._failed
            self._said.add(same)
            if for_good:
                self._failed.add(place.mirror)
        if isinstance(error, ImageError) and not known:
            self._progress(f"{about}: mirror {why}{_rest(error)}")


def _rest(error: ImageError) -> str:
    """Return what follows of a mirror's failure: its image is asked for elsewhere, whatever is."""
    if isinstance(error, TransientError):
        return "; it is not asked again in this run"
    return f". {error.hint}" if error.hint not in {"", LOOK} else ""
