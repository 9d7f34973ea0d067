"""What is known of images without running them: read once, kept in the store, equal on all engines.

An image's id names all its bytes and its command: what was read for it stays true.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from nox_variants import rootfs, startup
from nox_variants.engines.builds import file_facts
from nox_variants.errors import StoreError
from nox_variants.oci.digest import canonical_json
from nox_variants.results import ImageFacts, Library, RootFacts, Startup, Step

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nox_variants.results import VariantImage
    from nox_variants.store import Store

FORMAT = 1
"""Part of every key: a change of what is read makes old answers unused."""

_FILE = "inspected.json"


class Inspector:
    """Reads images.

    Args:
        store: Where answers are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known: dict[str, ImageFacts] = {}
        self._roots: dict[tuple[Path, ...], RootFacts] = {}

    def facts(self, image: VariantImage, lower: Callable[[], tuple[Path, ...]]) -> ImageFacts:
        """Return what an image's root offers, and how its command would start.

        Args:
            image: The image.
            lower: Gives the folders of its root, base first; asked only where they have to be read.
        """
        key = hashlib.sha256(canonical_json(["inspect", FORMAT, image.config_digest])).hexdigest()
        with self._lock:
            known = self._known.get(key)
        if known is None:
            known = self._kept(key) or self._read(key, image, lower())
            with self._lock:
                self._known[key] = known
        return known

    def _kept(self, key: str) -> ImageFacts | None:
        folder = self._store.find("facts", key)
        if folder is None:
            return None
        with suppress(StoreError, LookupError, TypeError, ValueError):
            return _image_facts(self._store.read_json(folder / _FILE))
        return None

    def _read(self, key: str, image: VariantImage, lower: tuple[Path, ...]) -> ImageFacts:
        facts = ImageFacts(
            root=self._root(lower, dict(image.env).get("PATH", rootfs.PATH)),
            startup=startup.read(lower, image.cmd, image.env, image.workdir),
        )
        with self._store.publish("facts", key, replace=True) as staging:
            self._store.write_json(staging / _FILE, _values(facts))
        return facts

    def _root(self, lower: tuple[Path, ...], path: str) -> RootFacts:
        """Return the facts of a root; those of a base hold where only programs are added to it."""
        bare = all(map(_only_files, lower[1:]))
        key = lower[:1] if bare else lower
        with self._lock:
            known = self._roots.get(key)
        if known is None:
            known = rootfs.facts(rootfs.Root(key), path)
            with self._lock:
                self._roots[key] = known
        return known


def _only_files(layer: Path) -> bool:
    """Tell whether a layer holds files in its topmost folder and nothing else."""
    with os.scandir(layer) as found:
        return all(entry.is_file(follow_symlinks=False) for entry in found)


def _values(facts: ImageFacts) -> dict[str, Any]:
    root = dataclasses.asdict(facts.root)
    sets = {name: sorted(value) for name, value in root.items() if isinstance(value, frozenset)}
    return {"root": {**root, **sets}, "startup": dataclasses.asdict(facts.startup)}


def _image_facts(values: dict[str, Any]) -> ImageFacts:
    root, found = values["root"], values["startup"]
    sets = {name: frozenset(root[name]) for name in ("loaders", "users", "nss")}
    return ImageFacts(
        root=RootFacts(**{**root, **sets, "hosts": tuple(root["hosts"])}),
        startup=Startup(
            steps=tuple(map(_step, found["steps"])),
            loader=_step(found["loader"]) if found["loader"] else None,
            libraries=tuple(map(_library, found["libraries"])),
            imports=tuple(found["imports"]),
            truncated=found["truncated"],
        ),
    )


def _step(values: dict[str, Any]) -> Step:
    facts = values["facts"]
    return Step(**{**values, "facts": file_facts(facts) if facts else None})


def _library(values: dict[str, Any]) -> Library:
    lists = {name: tuple(values[name]) for name in ("searched", "undefined")}
    return Library(**{**values, **lists})
