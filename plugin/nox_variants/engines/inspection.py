"""What is known of images without running them: read once, kept in the store, equal on all engines.

What a base offers is kept for the base, how a program starts for the image; a static program says
all of that itself. A digest names all bytes: what was read for it stays true.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nox_variants import rootfs
from nox_variants.engines.builds import file_facts
from nox_variants.errors import StoreError
from nox_variants.oci.digest import canonical_json
from nox_variants.results import ImageFacts, Library, Linkage, RootFacts, Startup, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nox_variants.model import Digest
    from nox_variants.plan import Plan
    from nox_variants.results import Build, FileFacts, VariantImage
    from nox_variants.store import Store

FORMAT = 2
"""Part of every key: a change of what is read makes old answers unused."""

_FILE = "inspected.json"
_SELF_CONTAINED = {Linkage.STATIC, Linkage.STATIC_PIE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """An image's files on this machine.

    Attributes:
        base: Digest of its run image.
        root: Gives the folder of that image's files; asked only where it has to be read.
        layers: Folders of what is added, lowest first.
        artifacts: What its artifacts say about themselves, by path in the image.
    """

    base: Digest
    root: Callable[[], Path]
    layers: tuple[Path, ...]
    artifacts: Mapping[str, FileFacts] = field(default_factory=dict)

    @property
    def lower(self) -> tuple[Path, ...]:
        """The folders of its root, base first."""
        return (self.root(), *self.layers)

    def told(self) -> dict[Path, FileFacts]:
        """Return what is known of files already, by where they lie."""
        return {
            Path(layer, path.lstrip("/")): facts
            for layer in self.layers
            for path, facts in self.artifacts.items()
        }


def shipped(plan: Plan, build: Build) -> dict[str, FileFacts]:
    """Return what the artifacts of an image say about themselves, by path in the image."""
    built = [each for each in build.artifacts if each.file.is_file()]
    facts = {artifact.path: artifact.facts for artifact in built}
    if plan.run.single_stage:
        return facts
    return {each.target: facts[each.source] for each in plan.run.files if each.source in facts}


class Inspector:
    """Reads images.

    Args:
        store: Where answers are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known: dict[str, ImageFacts] = {}
        self._roots: dict[str, RootFacts] = {}

    def facts(self, image: VariantImage, files: Files) -> ImageFacts:
        """Return what an image's root offers, and how its command would start."""
        with self._lock:
            known = self._known.get(image.config_digest)
        if known is None:
            known = ImageFacts(root=self._root(image, files), startup=self._startup(image, files))
            with self._lock:
                self._known[image.config_digest] = known
        return known

    def _startup(self, image: VariantImage, files: Files) -> Startup:
        """Return how an image starts."""
        alone = _alone(image, files)
        if alone is not None:
            return Startup(steps=(alone,), imports=alone.facts.imports if alone.facts else ())
        key = _key("startup", image.config_digest)
        values = self._kept(key)
        if values is None:
            values = self._keep(key, dataclasses.asdict(_started(image, files)))
        return _startup(values)

    def _root(self, image: VariantImage, files: Files) -> RootFacts:
        """Return the facts of a root; those of a base hold where only programs are added to it."""
        path = dict(image.env).get("PATH", rootfs.PATH)
        bare = all(map(_only_files, files.layers))
        key = _key("root", files.base if bare else image.config_digest, path)
        with self._lock:
            known = self._roots.get(key)
        if known is None:
            values = self._kept(key)
            if values is None:
                lower = (files.root(),) if bare else files.lower
                values = self._keep(key, _values(rootfs.facts(rootfs.Root(lower), path)))
            known = _root_facts(values)
            with self._lock:
                self._roots[key] = known
        return known

    def _kept(self, key: str) -> dict[str, Any] | None:
        folder = self._store.find("facts", key)
        if folder is not None:
            with suppress(StoreError):
                return self._store.read_json(folder / _FILE)
        return None

    def _keep(self, key: str, values: dict[str, Any]) -> dict[str, Any]:
        with self._store.publish("facts", key, replace=True) as staging:
            self._store.write_json(staging / _FILE, values)
        return values


def _alone(image: VariantImage, files: Files) -> Step | None:
    """Return the step of an image whose command is a static artifact; it says all by itself."""
    path = image.argv[0] if image.argv else ""
    facts = files.artifacts.get(path)
    if facts is None or facts.linkage not in _SELF_CONTAINED:
        return None
    for layer in files.layers:
        with suppress(OSError):
            mode = (layer / path.lstrip("/")).lstat().st_mode
            return Step(path=path, facts=facts, executable=bool(mode & 0o111))
    return None


def _started(image: VariantImage, files: Files) -> Startup:
    from nox_variants import startup  # noqa: PLC0415  # the store has most answers

    root = rootfs.Root(files.lower, files.told())
    return startup.start(root, image.argv, image.env, image.workdir)


def _key(*parts: str) -> str:
    return hashlib.sha256(canonical_json([FORMAT, *parts])).hexdigest()


def _only_files(layer: Path) -> bool:
    """Tell whether a layer holds files in its topmost folder and nothing else."""
    with os.scandir(layer) as found:
        return all(entry.is_file(follow_symlinks=False) for entry in found)


def _values(root: RootFacts) -> dict[str, Any]:
    values = dataclasses.asdict(root)
    sets = {name: sorted(value) for name, value in values.items() if isinstance(value, frozenset)}
    return {**values, **sets}


def _root_facts(values: dict[str, Any]) -> RootFacts:
    sets = {name: frozenset(values[name]) for name in ("loaders", "users", "nss")}
    return RootFacts(**{**values, **sets, "hosts": tuple(values["hosts"])})


def _startup(values: dict[str, Any]) -> Startup:
    return Startup(
        steps=tuple(map(_step, values["steps"])),
        loader=_step(values["loader"]) if values["loader"] else None,
        libraries=tuple(map(_library, values["libraries"])),
        imports=tuple(values["imports"]),
        truncated=values["truncated"],
    )


def _step(values: dict[str, Any]) -> Step:
    facts = values["facts"]
    return Step(**{**values, "facts": file_facts(facts) if facts else None})


def _library(values: dict[str, Any]) -> Library:
    lists = {name: tuple(values[name]) for name in ("searched", "undefined")}
    return Library(**{**values, **lists})
