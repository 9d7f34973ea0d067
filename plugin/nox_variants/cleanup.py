"""Taking away what is not needed any more: from the store, and from daemons.

Nothing that a running process may use is removed, and nothing at all without a label of ours.
"""

from __future__ import annotations

import re
import socket
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nox_variants import usage
from nox_variants.checkup import expected
from nox_variants.engines.docker.connection import DaemonError, connect, explained
from nox_variants.engines.docker.labels import LABEL, OWNER, ended
from nox_variants.engines.docker.leftovers import remove_left_behind
from nox_variants.errors import EngineUnavailable, VariantsError
from nox_variants.model import LinkMode
from nox_variants.names import TAG_LENGTH
from nox_variants.reports.table import size
from nox_variants.results import EngineName
from nox_variants.store import Store, look

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from nox_variants.engines.docker.connection import Daemon

MEANS = "nox-variants/"
"""The beginning of the repositories that hold build stages, stand-ins and images with setup."""

_TITLE = "org.opencontainers.image.title"
_NONE = "<none>:<none>"
_ADDED = ("docker.io/library/", "docker.io/", "localhost/")
"""What Podman puts before a name that has no registry."""
_LINKED = re.compile(rf"-(?:{'|'.join(LinkMode)})\.")
_NOT_FOUND = 404


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What is to be removed.

    Attributes:
        keep: How many bytes of the store's parts may stay, or None for all.
        older_than: Seconds after which an unused part of the store goes, or None for never.
        variants: Whether variants' images go, too.
        dry_run: Whether all is only said, and nothing done.
    """

    keep: int | None = None
    older_than: float | None = None
    variants: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What went, or would go.

    Attributes:
        place: The store, or a daemon's name.
        what: In words, with numbers.
        freed: Bytes, or None where nobody says.
    """

    place: str
    what: str
    freed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What stays although it should go.

    Attributes:
        place: The store, or a daemon's name.
        what: In words.
        why: The reason.
    """

    place: str
    what: str
    why: str


Result = Removed | Kept


def line(result: Result, *, dry_run: bool) -> str:
    """Return a result in a line."""
    if isinstance(result, Kept):
        return f"{result.place}: kept {result.what}: {result.why}"
    verb = "would remove" if dry_run else "removed"
    bytes_ = "" if result.freed is None else f", {size(result.freed)}"
    return f"{result.place}: {verb} {result.what}{bytes_}"


def everything(
    environ: Mapping[str, str], home: Path, wishes: Wishes, *, now: float
) -> Iterator[Result]:
    """Clean the store and every daemon that answers; none of them stops the others.

    Args:
        environ: The environment.
        home: The store's folder.
        wishes: What goes.
        now: In seconds since 1970.
    """
    yield from _explained("store", clean_store(home, wishes, now=now))
    done: set[tuple[tuple[str, str], ...]] = set()
    for name in (EngineName.DOCKER, EngineName.PODMAN):
        try:
            daemon = connect(name, environ)
        except EngineUnavailable as error:
            if expected(name, environ):
                yield Kept(place=name, what="everything", why=str(error))
            continue
        if daemon.environ not in done:  # DOCKER_HOST may lead to Podman
            done.add(daemon.environ)
            yield from _explained(daemon.info.name, clean_daemon(daemon, home, wishes))
        daemon.client.close()


def _explained(place: str, results: Iterator[Result]) -> Iterator[Result]:
    try:
        yield from results
    except VariantsError as error:
        yield Kept(place=place, what="the rest", why=str(error))


# --- the store ----------------------------------------------------------------------------------


def clean_store(home: Path, wishes: Wishes, *, now: float) -> Iterator[Result]:
    """Remove what killed processes left, and parts that are wished away.

    Args:
        home: The store's folder.
        wishes: What goes.
        now: In seconds since 1970.

    Raises:
        StoreError: It cannot be read or written.
    """
    if not home.is_dir():
        return
    _, left = look(home)
    freed = sum(map(usage.Meter().size, left))
    with entered(home, dry_run=wishes.dry_run) as store:  # which removes what is left
        if left:
            what = _number(len(left), "piece", "of unfinished work")
            yield Removed(place="store", what=what, freed=freed)
        if wishes.keep is not None or wishes.older_than is not None:
            yield _parts(home, store, wishes, now=now)


@contextmanager
def entered(home: Path, *, dry_run: bool) -> Iterator[Store | None]:
    """Enter the store for a while, unless nothing is to be done."""
    if dry_run:
        yield None
        return
    store = Store(home)
    try:
        yield store
    finally:
        store.close()


def _parts(home: Path, store: Store | None, wishes: Wishes, *, now: float) -> Result:
    """Remove the parts that are too old or too many, while no other process is in the store."""
    meter = usage.Meter()
    measured = {part: meter.size(part.path) for part in usage.parts(home)}
    chosen = usage.surplus(measured, keep=wishes.keep, older_than=wishes.older_than, now=now)
    kinds = f" ({usage.counted(chosen)})" if chosen else ""
    what = f"{len(chosen)} of {_number(len(measured), 'part')}{kinds}"
    freed = sum(measured[part] for part in chosen)
    others = _move_away(store, chosen) if store else look(home)[0]
    if chosen and others:
        return Kept(place="store", what=what, why=in_use(others))
    return Removed(place="store", what=what, freed=freed)


def _move_away(store: Store, chosen: Sequence[usage.Part]) -> tuple[int, ...]:
    """Remove parts; returns the ids of processes that may use them, for which they stay.

    A name without its image is no trouble: it is made again.
    """
    with store.staging() as away, store.guarded() as others:
        for number, part in enumerate(chosen if not others else ()):
            with suppress(FileNotFoundError):
                part.path.rename(away / str(number))
    return others


def in_use(processes: Iterable[int]) -> str:
    """Return who keeps the store, in words."""
    numbers = ", ".join(map(str, processes))
    return f"in use by process {numbers}; again when it has ended"


# --- daemons ------------------------------------------------------------------------------------


def clean_daemon(daemon: Daemon, home: Path, wishes: Wishes) -> Iterator[Result]:
    """Remove containers of dead runs, and images, while no run can be using them.

    Args:
        daemon: Docker or Podman.
        home: The folder of the store, which tells who is running.
        wishes: What goes.

    Raises:
        DaemonError: The daemon failed.
        StoreError: The store cannot be read or written.
    """
    place = daemon.info.name
    dead, alive = _containers(daemon)
    if dead:
        count = len(dead) if wishes.dry_run else remove_left_behind(daemon)
        yield Removed(place=place, what=_number(count, "container", "of ended runs"))
    if alive:
        why = f"runs of {', '.join(alive)} have containers; again when they have ended"
        yield Kept(place=place, what="images", why=why)
        return
    before = _disk(daemon)
    others, removed, kept = _images(daemon, home, wishes)
    if others:
        yield Kept(place=place, what="images", why=in_use(others))
    if removed:
        freed = None
        if before is not None and not wishes.dry_run:
            freed = max(before - (_disk(daemon) or 0), 0)
        yield Removed(place=place, what=_number(removed, "image"), freed=freed)
    yield from kept


def _images(
    daemon: Daemon, home: Path, wishes: Wishes
) -> tuple[tuple[int, ...], int, tuple[Kept, ...]]:
    """Remove images; returns who keeps them, how many went, and which stay."""
    with entered(home, dry_run=wishes.dry_run) as store:
        if store is None:
            others = look(home)[0]
            names = () if others else _candidates(daemon, variants=wishes.variants)
            return others, len(names), ()
        with store.guarded() as others:
            found = () if others else _remove_images(daemon, variants=wishes.variants)
    kept = tuple(each for each in found if isinstance(each, Kept))
    return others, len(found) - len(kept), kept


def _containers(daemon: Daemon) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the owners of containers: those that are dead, and all others."""
    with explained("looking for containers"):
        found = daemon.client.api.containers(all=True, filters={"label": OWNER})
    owners = [(each.get("Labels") or {}).get(OWNER, "") for each in found]
    dead = [owner for owner in owners if ended(owner, socket.gethostname())]
    return tuple(dead), tuple(sorted(set(owners) - set(dead)))


def _remove_images(daemon: Daemon, *, variants: bool) -> tuple[str | Kept, ...]:
    """Remove images that are only means; the untagged ones last, which others stand on."""
    found = [_remove(daemon, name) for name in _tagged(daemon, variants=variants)]
    tried: set[str] = set()
    while names := [name for name in _untagged(daemon) if name not in tried]:
        tried.update(names)
        found += [_remove(daemon, name) for name in names]
    return tuple(each for each in found if each)


def _candidates(daemon: Daemon, *, variants: bool) -> tuple[str, ...]:
    return *_tagged(daemon, variants=variants), *_untagged(daemon)


def _tagged(daemon: Daemon, *, variants: bool) -> tuple[str, ...]:
    with explained("looking for images"):
        found = daemon.client.api.images()
    return tuple(name for image in found for name in removable(image, variants=variants))


def _untagged(daemon: Daemon) -> tuple[str, ...]:
    with explained("looking for images"):
        found = daemon.client.api.images(filters={"dangling": True})
    return tuple(str(image["Id"]) for image in found if ours(image) and not _tags(image))


def _remove(daemon: Daemon, name: str) -> str | Kept:
    """Remove an image by a name; returns the name, or why it stays, or nothing when it was gone."""
    try:
        with explained(f"removing {name}"):
            daemon.client.api.remove_image(name)
    except DaemonError as error:
        if getattr(error.__cause__, "status_code", None) == _NOT_FOUND:
            return ""
        why = error.message.removeprefix(f"removing {name}: ")
        return Kept(place=daemon.info.name, what=name, why=why)
    return name


def ours(image: Mapping[str, Any]) -> bool:
    """Tell whether an image of a daemon's list has a label of ours."""
    return any(name.startswith(LABEL) for name in image.get("Labels") or {})


def removable(image: Mapping[str, Any], *, variants: bool) -> tuple[str, ...]:
    """Return the names of an image that may go.

    An image that somebody made on top of one of ours has its labels too: the name decides.

    Args:
        image: An image of a daemon's list.
        variants: Whether a variant's image may go, too.
    """
    if not ours(image):
        return ()
    return tuple(
        name
        for name in _tags(image)
        if (short := _short(name)).startswith(MEANS)
        or (variants and _is_variant(short, image.get("Labels") or {}))
    )


def _is_variant(name: str, labels: Mapping[str, str]) -> bool:
    """Tell whether a name is one that a variant gets: ``PROGRAM:BUILD-LINK.RUN``."""
    repository, _, tag = name.rpartition(":")
    return (
        f"{LABEL}variant" in labels
        and repository == labels.get(_TITLE)
        and (_LINKED.search(tag) is not None or len(tag) == TAG_LENGTH)
    )


def _tags(image: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(name for name in image.get("RepoTags") or () if name != _NONE)


def _short(name: str) -> str:
    prefix = next((each for each in _ADDED if name.startswith(each)), "")
    return name.removeprefix(prefix)


def _disk(daemon: Daemon) -> int | None:
    """Return the bytes of a daemon's layers, where it says them: Podman says 0."""
    if daemon.info.name is EngineName.PODMAN:
        return None
    try:
        with explained("measuring layers"):
            return int(daemon.client.df().get("LayersSize") or 0)
    except DaemonError:
        return None


def _number(count: int, noun: str, rest: str = "") -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}{f' {rest}' if rest else ''}"
