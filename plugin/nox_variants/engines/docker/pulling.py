"""Registry images through the daemon: pulled once, with progress, and known to the store."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from typing import IO, TYPE_CHECKING, Any, cast

from nox_variants.engines.docker import builders
from nox_variants.engines.docker.connection import DaemonError, explained
from nox_variants.engines.docker.labels import LABEL, OWNER, owner
from nox_variants.engines.docker.saved import Stream, contents
from nox_variants.errors import BuildFailed, ImageError, ImageUnavailable
from nox_variants.images import locking
from nox_variants.images.installed import installed
from nox_variants.images.layers import Unpacker
from nox_variants.model import Digest, SourceKind
from nox_variants.oci.digest import canonical_json, hex_of
from nox_variants.oci.layer import digest_tree
from nox_variants.results import PreparedImage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from docker.models.images import Image as DockerImage

    from nox_variants.baseline import Pin
    from nox_variants.engines.docker.builders import Builder
    from nox_variants.engines.docker.connection import Daemon
    from nox_variants.model import Image, ImageSource, Pairs
    from nox_variants.store import Store

DERIVED = "nox-variants/image"
"""The repository of registry images with their setup on top."""

_EVERY = 2.0
"""Seconds between two notes on how far a pull is."""

_UNREACHABLE = re.compile(
    r"no such host|connection refused|i/o timeout|network is unreachable|no route to host"
    r"|server misbehaving|request canceled|TLS handshake timeout|temporary failure"
    r"|deadline exceeded|dial tcp|pinging container registry",
    re.IGNORECASE,
)
_HINTS = (
    (re.compile(r"unauthorized|denied|authentication", re.IGNORECASE), "docker login, and again."),
    (re.compile(r"toomanyrequests|rate limit", re.IGNORECASE), "Log in, or wait: that is a limit."),
    (re.compile(r"not found|manifest unknown", re.IGNORECASE), "Is the reference right?"),
)


class Puller:
    """Pulls images, each once in a run, and not at all where the daemon has them.

    Args:
        daemon: The daemon.
        builder: Runs `setup` commands on top.
        store: Where roots are kept, for questions about them.
        refresh: Whether images that the daemon has are pulled again.
        progress: Told how far it is.
        cancelled: Ends a pull.
    """

    def __init__(
        self,
        *,
        daemon: Daemon,
        builder: Builder,
        store: Store,
        refresh: bool,
        progress: Callable[[str], None],
        cancelled: threading.Event,
    ) -> None:
        self._daemon = daemon
        self._builder = builder
        self._store = store
        self._refresh = refresh
        self._progress = progress
        self._cancelled = cancelled
        self._lock = threading.Lock()
        self._unreachable: dict[str, str] = {}

    def __call__(self, image: Image, source: ImageSource, pin: Pin | None = None) -> PreparedImage:
        """Return an image that the daemon has, with its setup.

        Args:
            image: The image.
            source: What names it.
            pin: What is taken whatever its tag names now; None for what the daemon or the registry
                has by that name.

        Raises:
            ImageUnavailable: Its registry cannot be reached from here.
            ImageError: The registry refused, or a setup command failed.
        """
        asked = pin.reference if pin else source.reference
        reference = locking.by_digest(asked) if pin else asked
        with self._store.lock(f"pull-{reference}", cancelled=self._cancelled):
            found = None if self._refresh else self._find(reference)
            found = found or self._pull(image.name, reference)
            pinned = _pinned(found, asked)
            if source.setup:
                found, reference = self._set_up(image.name, found, reference, source.setup)
            return self._prepared(image, found, reference, pinned)

    def _find(self, reference: str) -> DockerImage | None:
        return find_image(self._daemon, reference)

    def _pull(self, name: str, reference: str) -> DockerImage:
        registry = _registry(reference)
        with self._lock:
            known = self._unreachable.get(registry)
        if known:
            raise ImageUnavailable(f"{name}: {known}")
        self._progress(f"{name}: pulling {reference}")
        try:
            with explained(f"{name}: {reference} cannot be pulled", ImageError):
                lines = self._daemon.client.api.pull(
                    *_name_and_tag(reference), stream=True, decode=True
                )
                self._follow(name, lines)
        except ImageError as error:
            raise self._failure(name, registry, error) from error
        found = self._find(reference)
        if found is None:
            raise ImageError(f"{name}: {reference} was pulled, but the daemon does not have it")
        return found

    def _follow(self, name: str, lines: Iterator[dict[str, Any]]) -> None:
        """Say now and then how far it is."""
        layers: dict[str, tuple[int, int]] = {}
        said = time.monotonic()
        for line in lines:
            if self._cancelled.is_set():
                raise DaemonError("cancelled")
            if error := line.get("error"):
                raise ImageError(f"{name}: cannot be pulled: {' '.join(str(error).split())}")
            detail = line.get("progressDetail") or {}
            if line.get("status") == "Downloading" and detail.get("total"):
                layers[str(line.get("id"))] = (int(detail["current"]), int(detail["total"]))
            if layers and time.monotonic() > said + _EVERY:
                said = time.monotonic()
                current, total = (sum(parts) for parts in zip(*layers.values(), strict=True))
                self._progress(f"{name}: pulling, {current / 1e6:.0f} of {total / 1e6:.0f} MB")

    def _failure(
        self, name: str, registry: str, error: ImageError
    ) -> ImageError | ImageUnavailable:
        if _UNREACHABLE.search(error.message):
            reason = f"registry {registry} cannot be reached from here"
            with self._lock:
                if registry not in self._unreachable:
                    self._progress(reason)
                self._unreachable[registry] = reason
            return ImageUnavailable(f"{name}: {reason}")
        hint = next((hint for sign, hint in _HINTS if sign.search(error.message)), "")
        return ImageError(error.message, hint=hint)

    def _set_up(
        self, name: str, base: DockerImage, reference: str, commands: tuple[str, ...]
    ) -> tuple[DockerImage, str]:
        """Return the image with its setup on top, built once for base and commands."""
        identity = canonical_json([str(base.id), commands])
        tag = f"{DERIVED}:{hashlib.sha256(identity).hexdigest()[:32]}"
        found = None if self._refresh else self._find(tag)
        if found is not None:
            return found, tag
        self._progress(f"{name}: running its setup")
        lines = [f"FROM {reference}", *(f"RUN {command}" for command in commands)]
        log = bytearray()
        with self._store.staging() as context:
            job = builders.Job(
                dockerfile="\n".join(lines) + "\n",
                context=context,
                tag=tag,
                labels=((f"{LABEL}image", name),),
            )
            try:
                self._builder.build(job, log.extend, self._cancelled)
            except BuildFailed as error:
                raise ImageError(f"image {name}: setup failed: {error.message}") from error
        found = self._find(tag)
        if found is None:
            raise ImageError(f"image {name}: its setup was run, but the daemon does not have it")
        return found, tag

    def _prepared(
        self, image: Image, found: DockerImage, reference: str, pinned: str
    ) -> PreparedImage:
        digest = _digest(found, pinned)
        self._keep_root(found, digest)
        return PreparedImage(
            name=image.name,
            kind=SourceKind.REGISTRY,
            reference=reference,
            digest=digest,
            packages=installed(self._store.entry("images", hex_of(digest)) / "root"),
            layers=tuple(map(Digest, found.attrs["RootFS"].get("Layers") or ())),
            content=sum(contents(self._store, found)),
            env=environment(found.attrs["Config"]),
            user=str(found.attrs["Config"].get("User") or ""),
            pinned=pinned,
        )

    def _keep_root(self, found: DockerImage, digest: Digest) -> None:
        """Unpack the image's files into the store, for the facts that explain failures."""
        key = hex_of(digest)
        if self._store.find("images", key) is not None:
            return
        with explained(f"reading {found.id}"):
            container = self._daemon.client.containers.create(
                str(found.id), command=["-"], labels={OWNER: owner()}
            )
            try:
                with self._store.publish("images", key) as staging:
                    root = staging / "root"
                    root.mkdir()
                    stream = Stream(
                        iter(cast("Iterable[bytes]", container.export(chunk_size=1 << 20)))
                    )
                    unpacker = Unpacker(root, cancelled=self._cancelled)
                    unpacker.apply(cast("IO[bytes]", stream))
                    unpacker.finish()
                    tree = digest_tree(root, mtime=0).diff_id
                    self._store.write_json(staging / "layers.json", {"tree": tree})
            finally:
                container.remove(force=True, v=True)


def find_image(daemon: Daemon, reference: str) -> DockerImage | None:
    """Return the image that a daemon has by a name, or None."""
    from docker.errors import ImageNotFound  # noqa: PLC0415  # with the SDK

    with explained(f"looking for {reference}"):
        try:
            return daemon.client.images.get(reference)
        except ImageNotFound:
            return None


def _registry(reference: str) -> str:
    """Return the host of a reference; docker.io when it names none (distribution/reference)."""
    first, slash, _ = reference.partition("/")
    named = slash and ("." in first or ":" in first or first == "localhost")
    return first if named else "docker.io"


def _name_and_tag(reference: str) -> tuple[str, str]:
    """Return what the API wants apart: a digest takes a tag's place."""
    if "@" in reference:
        name, _, digest = reference.partition("@")
        return name, digest
    name, colon, tag = reference.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (reference, "latest")


def _names(found: DockerImage) -> list[str]:
    """Return the names with digests by which registries know an image."""
    return list(found.attrs.get("RepoDigests") or ())


def _pinned(found: DockerImage, reference: str) -> str:
    """Return by what its own registry gives an image again; empty where only the daemon has it."""
    own = locking.known_digests(reference, _names(found))
    return locking.pinned(reference, own[0]) if own else ""


def _digest(found: DockerImage, pinned: str) -> Digest:
    """Return the digest by which a registry knows the image, its own before others; else its id."""
    known = [each.partition("@")[2] for each in _names(found)]
    own = pinned.partition("@")[2]
    return Digest(own if own in known else known[0] if known else str(found.id))


def environment(config: Mapping[str, Any]) -> Pairs:
    """Return the environment of an image's configuration, as a daemon has it."""
    parts = (each.partition("=") for each in config.get("Env") or ())
    return tuple((name, value) for name, _, value in parts)
