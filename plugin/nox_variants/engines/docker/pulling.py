"""Registry images through the daemon: pulled once, with progress, and known to the store."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, cast

from nox_variants import names
from nox_variants.engines.docker import builders
from nox_variants.engines.docker.connection import explained
from nox_variants.engines.docker.downloads import Downloads, name_and_tag
from nox_variants.engines.docker.labels import LABEL, OWNER, owner
from nox_variants.engines.docker.layouts import Layouts
from nox_variants.engines.docker.saved import Stream, contents
from nox_variants.errors import BuildFailed, ImageError
from nox_variants.images import locking
from nox_variants.images.installed import installed
from nox_variants.images.layers import Unpacker
from nox_variants.images.mirrors import places
from nox_variants.model import Digest, SourceKind
from nox_variants.oci.digest import canonical_json, hex_of
from nox_variants.oci.layer import digest_tree
from nox_variants.results import PreparedImage

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Mapping

    from docker.models.images import Image as DockerImage

    from nox_variants.baseline import Pin
    from nox_variants.engines.docker.builders import Builder
    from nox_variants.engines.docker.connection import Daemon
    from nox_variants.model import Image, ImageSource, Mirrors, Pairs
    from nox_variants.store import Store

DERIVED = "nox-variants/image"
"""The repository of registry images with their setup on top."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Had:
    """An image that the daemon has.

    Attributes:
        image: The image.
        reference: What was asked for.
        pinned: By what its own registry gives it again; empty where only the daemon has it.
        mirrored: By what the mirror does that gave it; empty where none did.
    """

    image: DockerImage
    reference: str
    pinned: str
    mirrored: str

    @property
    def local(self) -> str:
        """What the daemon finds it by."""
        return known_as(self.reference, self.mirrored)


class Puller:
    """Pulls images, each once in a run, and not at all where the daemon has them.

    Args:
        daemon: The daemon.
        builder: Runs `setup` commands on top.
        store: Where roots are kept, for questions about them.
        refresh: Whether images that the daemon has are pulled again.
        mirrors: What is asked for images before their own registries.
        progress: Told how far it is.
        cancelled: Ends a pull.
        environ: The environment, for proxies.
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
        mirrors: Mirrors = (),
        environ: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._daemon = daemon
        self._builder = builder
        self._store = store
        self._refresh = refresh
        self._mirrors = mirrors
        self._progress = progress
        self._cancelled = cancelled
        self._downloads = Downloads(
            daemon=daemon,
            mirrors=mirrors,
            progress=progress,
            cancelled=cancelled,
            environ=environ,
        )
        self._pulled: set[str] = set()
        self._made: set[str] = set()

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
            had = self._had(image.name, asked, reference, insecure=source.insecure)
            if source.setup:
                had = self._set_up(image.name, had, source.setup)
            return self._prepared(image, had)

    def _had(self, name: str, asked: str, reference: str, *, insecure: bool) -> _Had:
        """Return what the daemon has, or pulls: once in a run, also where it has something."""
        found = None
        if not self._refresh or reference in self._pulled:
            found = self._find(reference)
        if found is None:
            found = self._pull(name, reference, insecure=insecure)
            self._pulled.add(reference)
        own = _digests(reference, found)
        mirrored = "" if own else self._mirrored(reference, found)
        exact = own[0] if own else Digest(mirrored.partition("@")[2])
        pinned = locking.pinned(asked, exact) if exact else ""
        return _Had(image=found, reference=reference, pinned=pinned, mirrored=mirrored)

    def _find(self, reference: str) -> DockerImage | None:
        """Return what the daemon has by a reference; by a digest, a mirror may have given it."""
        wanted = [reference]
        if "@" in reference:
            wanted += [each.reference for each in places(reference, self._mirrors)[:-1]]
        return next(filter(None, (find_image(self._daemon, each) for each in wanted)), None)

    def _pull(self, name: str, reference: str, *, insecure: bool) -> DockerImage:
        """Return what was pulled; what a mirror gave gets its own tag, too."""
        place = self._downloads.pull(name, reference, insecure=insecure)
        found = find_image(self._daemon, place.reference)
        if found is not None and place.mirror and "@" not in reference:
            with explained(f"{name}: giving {reference} to what {place.mirror} gave"):
                found.tag(*name_and_tag(reference))
            found = find_image(self._daemon, reference)
        if found is None:
            raise ImageError(f"{name}: {reference} was pulled, but the daemon does not have it")
        return found

    def _mirrored(self, reference: str, found: DockerImage) -> str:
        """Return by what a mirror gives an image again that the daemon has of it."""
        for place in places(reference, self._mirrors)[:-1]:
            if known := _digests(place.reference, found):
                name = place.reference.partition("@")[0]
                return locking.by_digest(f"{name}@{known[0]}")
        return ""

    def _set_up(self, name: str, base: _Had, commands: tuple[str, ...]) -> _Had:
        """Return the image with its setup on top, built once for base and commands."""
        identity = canonical_json([str(base.image.id), commands])
        tag = f"{DERIVED}:{hashlib.sha256(identity).hexdigest()[:32]}"
        found = None
        if not self._refresh or tag in self._made:
            found = find_image(self._daemon, tag)
        if found is None:
            found = self._build(name, base, commands, tag)
            self._made.add(tag)
        return _Had(image=found, reference=tag, pinned=base.pinned, mirrored="")

    def _build(self, name: str, base: _Had, commands: tuple[str, ...], tag: str) -> DockerImage:
        self._progress(f"{name}: running its setup")
        reference = base.local
        contexts: Pairs = ()
        if self._builder.remote:
            exact = base.mirrored or base.pinned
            if not exact:  # no registry has it
                layouts = Layouts(store=self._store, cancelled=self._cancelled)
                contexts = ((reference, layouts.of_daemon(base.image)),)
            reference = exact or reference
        lines = [f"FROM {reference}", *(f"RUN {command}" for command in commands)]
        log = bytearray()
        with self._store.staging() as context:
            job = builders.Job(
                dockerfile="\n".join(lines) + "\n",
                context=context,
                tag=tag,
                labels=((f"{LABEL}image", name),),
                contexts=contexts,
                cache_tags=(names.cache_tag(names.bake_image(name)),),
            )
            try:
                self._builder.build(job, log.extend, self._cancelled)
            except BuildFailed as error:
                raise ImageError(f"image {name}: setup failed: {error.message}") from error
        found = find_image(self._daemon, tag)
        if found is None:
            raise ImageError(f"image {name}: its setup was run, but the daemon does not have it")
        return found

    def _prepared(self, image: Image, had: _Had) -> PreparedImage:
        found = had.image
        digest = _digest(found, had.pinned)
        self._keep_root(found, digest)
        return PreparedImage(
            name=image.name,
            kind=SourceKind.REGISTRY,
            reference=had.reference,
            digest=digest,
            packages=installed(self._store.entry("images", hex_of(digest)) / "root"),
            layers=tuple(map(Digest, found.attrs["RootFS"].get("Layers") or ())),
            content=sum(contents(self._store, found)),
            env=environment(found.attrs["Config"]),
            user=str(found.attrs["Config"].get("User") or ""),
            pinned=had.pinned,
            mirrored=had.mirrored,
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


def known_as(reference: str, mirrored: str) -> str:
    """Return what a daemon finds an image by.

    That is its reference, a tag of which a pull from a mirror moves, too. A digest is known by the
    mirror's name only: no daemon takes ``NAME@DIGEST`` for a tag.
    """
    return mirrored if mirrored and "@" in reference else reference


def find_image(daemon: Daemon, reference: str) -> DockerImage | None:
    """Return the image that a daemon has by a name, or None."""
    from docker.errors import ImageNotFound  # noqa: PLC0415  # with the SDK

    with explained(f"looking for {reference}"):
        try:
            return daemon.client.images.get(reference)
        except ImageNotFound:
            return None


def _names(found: DockerImage) -> list[str]:
    """Return the names with digests by which registries know an image."""
    return list(found.attrs.get("RepoDigests") or ())


def _digests(reference: str, found: DockerImage) -> tuple[Digest, ...]:
    """Return the digests by which a registry knows an image; only the one that was asked for."""
    wanted = reference.partition("@")[2]
    known = locking.known_digests(reference, _names(found))
    return tuple(each for each in known if wanted in {"", each})


def _digest(found: DockerImage, pinned: str) -> Digest:
    """Return the digest by which a registry knows the image, its own before others; else its id."""
    known = [each.partition("@")[2] for each in _names(found)]
    own = pinned.partition("@")[2]
    return Digest(own if own in known else known[0] if known else str(found.id))


def environment(config: Mapping[str, Any]) -> Pairs:
    """Return the environment of an image's configuration, as a daemon has it."""
    parts = (each.partition("=") for each in config.get("Env") or ())
    return tuple((name, value) for name, _, value in parts)
