"""Images out of files: docker-archive, OCI archive and folder, plain root filesystem.

They are told apart by content, not by name, and all of it is untrusted. No name in a file becomes a
path on this machine; in a folder, no link is followed. How tars are read is known to
:mod:`nox_variants.images.tarfiles`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, Self

from nox_variants import jsontext
from nox_variants.errors import ImageError, LayoutError
from nox_variants.images.content import (
    LARGEST_MANIFEST,
    MOST_LAYERS,
    Descriptor,
    ImageContent,
    choose,
    descriptor,
    document,
    image,
    is_index,
    new_file,
    parts,
)
from nox_variants.images.tarfiles import (
    KINDS,
    WHOLE,
    Tar,
    compression,
    go_on,
    plain,
    read_range,
)
from nox_variants.model import Digest
from nox_variants.oci.digest import hex_of, sha256_bytes, short
from nox_variants.oci.image import LAYER
from nox_variants.oci.layout import BLOBS, CONTAINERD_NAME, REF_NAME

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

MOST_SHOWN = 20
"""Images that an error names."""

MOST_INDEXES = 2
"""Indexes above a manifest, `index.json` included: `docker save` and buildx write two."""

_MEDIA_TYPES = {"": LAYER, "gzip": f"{LAYER}+gzip", "zstd": f"{LAYER}+zstd"}
_NAMED = re.compile(r"(?:blobs/sha256/|sha256:)?([0-9a-f]{64})(?:\.json)?")
"""A configuration's name that says its digest (Docker, Podman; Bazel and ko)."""

_SAVE_AGAIN = "Save or copy the image again, whole."
_SAVE_ONE = "Save one image, or one tag, to a file."


class Archive:
    """An image's file, opened.

    Attributes:
        content: The image.
    """

    def __init__(
        self,
        path: Path,
        files: _Files,
        content: ImageContent,
        names: Mapping[Digest, str],
        cancelled: threading.Event,
    ) -> None:
        self.content = content
        self._path = path
        self._files = files
        self._names = names
        self._cancelled = cancelled

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the file back."""
        self._files.close()

    def fetch(self, layer: Descriptor, file: Path) -> None:
        """Write a layer, as it is in the archive, into a new file, verified.

        Raises:
            ImageError: It cannot be read, or is not what its digest says.
            OSError: The file cannot be written.
        """
        with _explained(self._path):
            if layer.digest not in self._names:
                raise LayoutError(f"{layer.digest}: is no layer of this image")
            name = self._names[layer.digest]
            _expect_size(self._files, name, layer)
        with new_file(file) as out:
            found = _digest(self._pieces(name), self._cancelled, out.write)
            if found != layer.digest:
                with _explained(self._path):
                    raise LayoutError(f"{layer.digest}: its content has the digest {found}")

    def _pieces(self, name: str) -> Iterator[bytes]:
        with _explained(self._path):
            yield from self._files.pieces(name)


def open_archive(path: Path, platform: str, *, cancelled: threading.Event) -> Archive:
    """Open an image's file and find out what the image consists of.

    Args:
        path: A docker-archive, an OCI archive or folder, a root filesystem's tar.
        platform: ``linux/amd64``; which image of several, and what the only one has to be.
        cancelled: Ends opening and later fetching.

    Raises:
        ImageError: It is none of them, is damaged or hostile, or has no such image.
    """
    with _explained(path, f"Save or copy the image again, whole and made for {platform}."):
        files = _open(path, cancelled)
        try:
            content, names = _read(files, platform, cancelled)
        except BaseException:
            files.close()
            raise
    return Archive(path, files, content, names, cancelled)


@contextmanager
def _explained(path: Path, hint: str = _SAVE_AGAIN) -> Iterator[None]:
    try:
        yield
    except LayoutError as error:
        raise ImageError(f"{path}: {error.message}", hint=error.hint or hint) from error
    except OSError as error:
        raise ImageError(
            f"{path}: cannot be read: {error.strerror or error}",
            hint="Is it readable for you, and is the folder for temporary files large enough?",
        ) from error
    except RecursionError as error:
        raise ImageError(f"{path}: is nested too deeply", hint=hint) from error


# What an image consists of.

_Found = tuple[ImageContent, dict[Digest, str]]
"""An image, and the names of its layers' files."""


def _read(files: _Folder | Tar, platform: str, cancelled: threading.Event) -> _Found:
    if files.has("oci-layout"):
        return _layout(files, platform)
    if isinstance(files, _Folder):
        raise LayoutError(
            "is a folder, but no OCI layout",
            hint="Pack what is in it into one file: tar -C FOLDER -cf FILE.tar .",
        )
    if files.has("manifest.json"):
        return _saved(files, platform, cancelled)
    return _root(files, cancelled)


def _layout(files: _Files, platform: str) -> _Found:
    """Return the image of an OCI layout (image-layout.md)."""
    marker = _document("oci-layout", _whole(files, "oci-layout"))
    if marker.get("imageLayoutVersion") != "1.0.0":
        raise LayoutError(f"oci-layout: version {short(marker.get('imageLayoutVersion'))}")
    found = _only(_document("index.json", _whole(files, "index.json")), platform)
    for _ in range(MOST_INDEXES):
        values = _blob(files, found)
        if not is_index(values, found.media_type):
            return _image(files, found.digest, values, platform)
        found = choose({"manifests": _images(values)}, platform)
    raise LayoutError(f"{found.digest}: lies under more than {MOST_INDEXES} indexes")


def _image(files: _Files, digest: Digest, manifest: dict[str, Any], platform: str) -> _Found:
    config, layers = parts(manifest)
    content = image(digest, layers, _blob(files, config), platform)
    names = {layer.digest: _place(layer) for layer in layers}
    for layer in layers:
        _expect_size(files, names[layer.digest], layer)
    return content, names


def _only(index: Mapping[str, Any], platform: str) -> Descriptor:
    """Return the only image of a layout, or the only one for a platform."""
    # Two tags of an image are two entries with one digest.
    entries = list({descriptor(each).digest: each for each in _images(index)}.values())
    if not entries:
        raise LayoutError("index.json: has no image")
    if len(entries) > 1 and not all(each.get("platform") for each in entries):
        raise _several([_reference(each) for each in entries])
    found = choose({"manifests": entries}, platform)
    others = [each for each in entries if descriptor(each).digest != found.digest]
    try:
        choose({"manifests": others}, platform)
    except LayoutError:
        return found
    raise _several([_reference(each) for each in entries])


def _images(index: Mapping[str, Any]) -> list[Any]:
    """Return an index's entries without attestations, which are manifests of no image."""
    entries = index.get("manifests")
    if not isinstance(entries, list):
        raise LayoutError(f"index: manifests: not a list: {short(entries)}")
    return [each for each in entries if not _is_attestation(each)]


def _is_attestation(entry: object) -> bool:
    platform = entry.get("platform") if isinstance(entry, dict) else None
    return isinstance(platform, dict) and (
        (platform.get("os"), platform.get("architecture")) == ("unknown", "unknown")
    )


def _reference(entry: Mapping[str, Any]) -> str:
    notes = entry.get("annotations")
    notes = notes if isinstance(notes, dict) else {}
    return short(notes.get(CONTAINERD_NAME) or notes.get(REF_NAME) or entry.get("digest"))


def _several(names: list[str]) -> LayoutError:
    more = [f"and {len(names) - MOST_SHOWN} more"] if len(names) > MOST_SHOWN else []
    shown = ", ".join([*names[:MOST_SHOWN], *more])
    return LayoutError(f"has {len(names)} images: {shown}", hint=_SAVE_ONE)


def _saved(files: Tar, platform: str, cancelled: threading.Event) -> _Found:
    """Return the image of a docker-archive (Docker image-spec v1.2, "Combined Image JSON")."""
    config_name, linked = _saved_names(_whole(files, "manifest.json"))
    names = [files.real(name) for name in linked]
    data = _whole(files, config_name)
    digest = sha256_bytes(data)
    named = _NAMED.fullmatch(config_name)
    if named and named[1] != hex_of(digest):
        raise LayoutError(f"{config_name}: its content has the digest {digest}")
    known: dict[str, Descriptor] = {}
    for name in names:
        if name not in known:
            known[name] = _described(files, name, cancelled)
    layers = [known[name] for name in names]
    content = image(digest, layers, _document(short(config_name), data), platform)
    for name, diff_id in zip(names, content.diff_ids, strict=True):
        if known[name].media_type == LAYER and known[name].digest != diff_id:
            raise LayoutError(
                f"{short(name)}: its content has the digest {known[name].digest}, not {diff_id}"
            )
    return content, {layer.digest: name for name, layer in known.items()}


def _saved_names(data: bytes) -> tuple[str, list[str]]:
    """Return the names of the only image's configuration and layers."""
    try:
        images = jsontext.parsed(data)
    except ValueError as error:
        raise LayoutError(f"manifest.json: is no JSON: {error}") from error
    if not isinstance(images, list) or not all(isinstance(each, dict) for each in images):
        raise LayoutError(f"manifest.json: not a list of objects: {short(images)}")
    if len(images) > 1:
        raise _several([short(each.get("RepoTags") or each.get("Config")) for each in images])
    if not images:
        raise LayoutError("manifest.json: has no image")
    config, layers = images[0].get("Config"), images[0].get("Layers")
    if not isinstance(layers, list) or not all(isinstance(each, str) for each in [config, *layers]):
        raise LayoutError(f"manifest.json: Config, Layers: not names: {short(images[0])}")
    if len(layers) > MOST_LAYERS:
        raise LayoutError(f"manifest.json: {len(layers)} layers, more than {MOST_LAYERS}")
    return config, layers


def _described(files: _Files, name: str, cancelled: threading.Event) -> Descriptor:
    """Return what a docker-archive does not say about a layer."""
    size = files.size(name)
    form = compression(next(files.pieces(name), b""))
    if form not in _MEDIA_TYPES:
        raise LayoutError(f"{short(name)}: is compressed with {form}, which no layer may be")
    digest = _digest(files.pieces(name), cancelled)
    if name.startswith(f"{BLOBS}/") and name != f"{BLOBS}/{hex_of(digest)}":
        raise LayoutError(f"{short(name)}: its content has the digest {digest}")
    return Descriptor(media_type=_MEDIA_TYPES[form], digest=digest, size=size)


def _root(files: _Files, cancelled: threading.Event) -> _Found:
    """Return a root filesystem's tar as an image of one layer."""
    digest = _digest(files.pieces(WHOLE), cancelled)
    layer = Descriptor(media_type=LAYER, digest=digest, size=files.size(WHOLE))
    content = ImageContent(digest=digest, layers=(layer,), diff_ids=(digest,), env=())
    return content, {digest: WHOLE}


def _place(blob: Descriptor) -> str:
    return f"{BLOBS}/{hex_of(blob.digest)}"


def _document(name: str, data: bytes) -> dict[str, Any]:
    try:
        return document(data)
    except LayoutError as error:
        raise LayoutError(f"{name}: {error.message}", hint=error.hint) from error


def _blob(files: _Files, blob: Descriptor) -> dict[str, Any]:
    return document(_whole(files, _place(blob)), blob.digest, blob.size)


def _whole(files: _Files, name: str) -> bytes:
    """Return a document's bytes."""
    size = files.size(name)
    if size > LARGEST_MANIFEST:
        raise LayoutError(f"{short(name)}: {size} bytes, more than {LARGEST_MANIFEST}")
    return b"".join(files.pieces(name))


def _expect_size(files: _Files, name: str, blob: Descriptor) -> None:
    size = files.size(name)
    if size != blob.size:
        raise LayoutError(f"{blob.digest}: has {size} bytes, not {blob.size}")


def _digest(
    pieces: Iterable[bytes],
    cancelled: threading.Event,
    write: Callable[[bytes], object] = len,
) -> Digest:
    """Return the digest of what is written."""
    hashed = hashlib.sha256()
    for piece in pieces:
        go_on(cancelled)
        hashed.update(piece)
        write(piece)
    go_on(cancelled)
    return Digest(f"sha256:{hashed.hexdigest()}")


# Files by name.


class _Files(Protocol):
    """Where an image's files are. Names are never paths of this machine."""

    def has(self, name: str) -> bool: ...

    def size(self, name: str) -> int: ...

    def pieces(self, name: str) -> Iterator[bytes]: ...

    def close(self) -> None: ...


def _open(path: Path, cancelled: threading.Event) -> _Folder | Tar:
    try:
        # A named pipe opens at once, and is refused then.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise LayoutError(
            "is not there",
            hint="Correct the path, or make the file: docker save --output FILE IMAGE",
        ) from error
    mode = os.fstat(handle).st_mode
    if stat.S_ISDIR(mode):
        return _Folder(handle)
    with os.fdopen(handle, "rb", buffering=0) as file:
        if not stat.S_ISREG(mode):
            raise LayoutError("is neither a file nor a folder", hint=KINDS)
        opened = plain(file, cancelled)
    try:
        return Tar(opened, cancelled)
    except BaseException:
        opened.close()
        raise


class _Folder:
    """A folder, in which no link is followed."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
        self._handle = -1

    def has(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self._handle, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def size(self, name: str) -> int:
        with self._opened(name) as handle:
            return os.fstat(handle).st_size

    def pieces(self, name: str) -> Iterator[bytes]:
        with self._opened(name) as handle:
            yield from read_range(handle, 0, os.fstat(handle).st_size)

    @contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        *folders, last = name.split("/")
        handle = os.dup(self._handle)
        try:
            for word, kind in [*((each, os.O_DIRECTORY) for each in folders), (last, 0)]:
                above, handle = handle, _beside(handle, word, kind)
                os.close(above)
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise LayoutError(f"{name}: is no regular file")
            yield handle
        finally:
            os.close(handle)


def _beside(folder: int, word: str, kind: int) -> int:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | kind
    try:
        return os.open(word, flags, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise LayoutError(f"{word}: is missing") from error
        if error.errno in {errno.ELOOP, errno.ENOTDIR, errno.ENXIO}:
            raise LayoutError(f"{word}: is a link, or of another wrong type") from error
        raise LayoutError(f"{word}: cannot be read: {error.strerror}") from error
