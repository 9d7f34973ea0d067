"""How images get to who needs them: into the daemon, and to a builder that does not see it."""

from __future__ import annotations

import functools
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from nox_variants import dockerfile
from nox_variants.engines.docker import layouts
from nox_variants.engines.docker.connection import DaemonError, explained
from nox_variants.engines.docker.pulling import DERIVED, find_image, known_as
from nox_variants.errors import ImageError
from nox_variants.model import SourceKind
from nox_variants.oci import image as oci
from nox_variants.oci import layout

if TYPE_CHECKING:
    from collections.abc import Iterable

    from docker.models.images import Image as DockerImage

    from nox_variants.engines.docker.connection import Daemon
    from nox_variants.engines.protocol import Images
    from nox_variants.model import Pairs
    from nox_variants.results import PreparedImage
    from nox_variants.store import Store

STAND_INS = "nox-variants/stand-in"
"""The repository of images out of packages."""

ARCHIVES = "nox-variants/archive"
"""The repository of images out of archives."""

_STORED = {SourceKind.APT: STAND_INS, SourceKind.ARCHIVE: ARCHIVES}
"""What only the store has, and the repository where a daemon gets it."""


class Bringer:
    """Brings prepared images to the daemon and to the builder.

    Args:
        daemon: The daemon.
        remote: Whether the builder is another than the daemon's own.
        store: Where layouts are kept.
        images: Gives the layers of what only the store has.
        host: ``linux/amd64``.
        cancelled: Ends everything.
    """

    def __init__(
        self,
        *,
        daemon: Daemon,
        remote: bool,
        store: Store,
        images: Images,
        host: str,
        cancelled: threading.Event,
    ) -> None:
        self._daemon = daemon
        self._remote = remote
        self._store = store
        self._images = images
        self._host = host
        self._cancelled = cancelled
        self._layouts = layouts.Layouts(store=store, cancelled=cancelled)
        self._lock = threading.Lock()
        self._loaded: set[str] = set()

    def bring(self, image: PreparedImage) -> None:
        """Bring an image to where the builder finds it."""
        if self._remote:
            self.contexts((image,))
        else:
            self.load(image)

    def contexts(self, images: Iterable[PreparedImage]) -> Pairs:
        """Return where a remote builder finds those images that it cannot pull itself."""
        found = {}
        for image in images if self._remote else ():
            if image.kind in _STORED:
                layers = functools.partial(self._images.layers, image)
                found[reference(image)] = self._layouts.of_store(image, self._host, layers)
            elif image.kind is SourceKind.REGISTRY and not _pullable(image):
                found[reference(image)] = self._layouts.of_daemon(self.found(image.reference))
        return tuple(found.items())

    def base(self, image: PreparedImage) -> dockerfile.Base:
        """Return what a stage of a Dockerfile is made from."""
        if image.kind is SourceKind.SCRATCH:
            return dockerfile.Base(name=image.name, reference=dockerfile.SCRATCH, env=image.env)
        # What the daemon knows by its tag, another builder would look up anew.
        exact = image.mirrored or image.pinned if self._remote and _pullable(image) else ""
        return dockerfile.Base(
            name=image.name,
            reference=exact or reference(image),
            user=image.user,
            stand_in=image.stand_in,
        )

    def load(self, image: PreparedImage) -> None:
        """Load an image out of the store, once, unless the daemon has it: others it has."""
        if image.kind not in _STORED:
            return
        tag = reference(image)
        with self._lock:
            if tag in self._loaded:
                return
        with self._store.lock(f"load-{tag}", cancelled=self._cancelled):
            if find_image(self._daemon, tag) is None:
                self._send(image, tag)
        with self._lock:
            self._loaded.add(tag)

    def _send(self, image: PreparedImage, tag: str) -> None:
        config = layouts.configuration(image, self._host)
        with tempfile.TemporaryDirectory(prefix="nox-variants-") as folder:
            file = Path(folder, "image.tar")
            layout.write_archive(
                file,
                tag=tag,
                config=config,
                manifest=oci.manifest(config, layouts.sizes(image)),
                layers=self._images.layers(image),
                docker=True,
            )
            with explained(f"loading {image.name}", ImageError), file.open("rb") as opened:
                self._daemon.client.images.load(opened)

    def found(self, tag: str) -> DockerImage:
        """Return an image that the daemon has.

        Raises:
            DaemonError: It has none by that name.
        """
        found = find_image(self._daemon, tag)
        if found is None:
            raise DaemonError(f"{tag}: the image is gone from the daemon")
        return found


def reference(image: PreparedImage) -> str:
    """Return what FROM names with a daemon: what was loaded has its content for a tag."""
    if image.kind in _STORED:
        return f"{_STORED[image.kind]}:{image.digest.partition(':')[2][:32]}"
    return known_as(image.reference, image.mirrored)


def _pullable(image: PreparedImage) -> bool:
    """Tell whether a registry gives this very image to whoever builds."""
    return bool(image.pinned) and not image.reference.startswith(f"{DERIVED}:")
