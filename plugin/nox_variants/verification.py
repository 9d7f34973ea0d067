"""Whether the store still holds what was written: every entry against the digests that it has.

What is damaged is taken out of the store: it is made again when somebody needs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nox_variants.errors import LayoutError, SourceError, StoreError
from nox_variants.oci.digest import hex_of, sha256_bytes, sha256_file
from nox_variants.oci.layer import digest_tree
from nox_variants.oci.layout import BLOBS
from nox_variants.sources import digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from nox_variants.store import Kind, Store

EPOCH = 0
"""The time that the trees of images are digested with, in seconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What became of an entry.

    Attributes:
        kind: Its folder in the store.
        key: Its name.
        damage: What is wrong with it; empty when nothing is.
    """

    kind: Kind
    key: str
    damage: str = ""


def verify(store: Store) -> Iterator[Verified]:
    """Yield every entry of a store; damaged ones are out of it when they are yielded."""
    checks: dict[Kind, Callable[[Store, Path], str]] = {
        "blobs": _blob,
        "images": _image,
        "builds": _build,
        "layers": _layer,
        "layouts": _layout,
        "sources": _source,
        "refs": _metadata,
        "facts": _metadata,
    }
    for kind, check in checks.items():
        folder = store.home / kind
        for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
            try:
                damage = check(store, entry)
            except FileNotFoundError as error:
                if not entry.exists():
                    continue  # another process took it out
                damage = f"{error.filename} is missing"
            except (OSError, LookupError, TypeError, ValueError) as error:
                damage = f"{type(error).__name__}: {error}"
            except (LayoutError, SourceError, StoreError) as error:
                damage = error.message
            if damage:
                store.discard(kind, entry.name)
            yield Verified(kind=kind, key=entry.name, damage=damage)


def _blob(_: Store, entry: Path) -> str:
    found = sha256_file(entry / "blob")
    return "" if hex_of(found) == entry.name else f"its content has the digest {found}"


def _image(store: Store, entry: Path) -> str:
    """Compare an image's files with what they were when they were unpacked.

    An image out of packages is named after its files; scratch has none.
    """
    found = digest_tree(entry / "root", mtime=EPOCH)
    if (entry / "layers.json").exists():
        wanted = store.read_json(entry / "layers.json")["tree"]
    elif entry.name == hex_of(sha256_bytes(b"")):
        return "" if not found.entries else "scratch has files"
    else:
        wanted = f"sha256:{entry.name}"
    return "" if found.diff_id == wanted else f"its files have the digest {found.diff_id}"


def _build(store: Store, entry: Path) -> str:
    for values in store.read_json(entry / "build.json")["artifacts"]:
        found = sha256_file(entry / "artifacts" / values["name"])
        if found != values["digest"]:
            return f"artifact {values['path']} has the digest {found}"
    return ""


def _layer(store: Store, entry: Path) -> str:
    """Compare a layer's tar; the skeleton of smoke runs is no layer and has none."""
    if not (entry / "layer.json").exists():
        return "" if entry.name.startswith("skeleton-") else "layer.json is missing"
    values = store.read_json(entry / "layer.json")
    found = sha256_file(entry / hex_of(values["diff_id"]))
    return "" if found == values["diff_id"] else f"its tar has the digest {found}"


def _layout(_: Store, entry: Path) -> str:
    for blob in (entry / BLOBS).iterdir():
        found = sha256_file(blob)
        if hex_of(found) != blob.name:
            return f"blob {blob.name} has the digest {found}"
    return ""


def _source(_: Store, entry: Path) -> str:
    found = digest_of(entry / "root")
    return "" if found == entry.name else f"its files have the digest {found}"


def _metadata(store: Store, entry: Path) -> str:
    for file in entry.iterdir():
        store.read_json(file)
    return ""
