"""Images out of files: docker-archive, OCI archive and folder, plain root filesystem.

They are told apart by content, not by name, and all of it is untrusted. Tars are indexed here and
not by :mod:`tarfile`, which takes into memory what a header asks for, and ends at a broken header
as at an end. Members are read where they lie; no name in a file becomes a path on this machine.

A name that is there twice means its last member, as for `tar -x`. Members with absolute names or
``..`` are no members. Links lead from member to member: Docker and Podman write a layer that is
there twice as one. In a folder, no link is followed.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import re
import stat
import tempfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Protocol, Self

from nox_variants.errors import ImageError, LayoutError
from nox_variants.images.content import (
    LARGEST_BLOB,
    LARGEST_MANIFEST,
    MOST_LAYERS,
    Descriptor,
    ImageContent,
    choose,
    descriptor,
    document,
    image,
    is_index,
    parts,
)
from nox_variants.images.flattened import MOST_ENTRIES
from nox_variants.model import Digest
from nox_variants.oci.digest import hex_of, sha256_bytes, short
from nox_variants.oci.image import LAYER
from nox_variants.oci.layer import BLOCK
from nox_variants.oci.layout import BLOBS, CONTAINERD_NAME, REF_NAME

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

LARGEST = LARGEST_BLOB
"""Bytes of a compressed archive's tar."""

LARGEST_EXTENSION = 1 << 20
"""Bytes of a long name or of pax records before a member."""

MOST_NAMES = 200_000
"""Members of a tar that is no root filesystem."""

MOST_SHOWN = 20
"""Images that an error names."""

MOST_INDEXES = 2
"""Indexes above a manifest, `index.json` included: `docker save` and buildx write two."""

MOST_LINKS = 8

_CHUNK = 1 << 20
_COMPRESSED_CHUNK = 1 << 10
"""4 bytes of zstd can mean 128 KiB, and its decompressor gives all that its input means."""

_WINDOW = 128 << 20
"""What zstd takes at most without being asked to (zstd --ultra, --long=27)."""

_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\0": "xz", b"BZh": "bzip2"}
_MEDIA_TYPES = {"": LAYER, "gzip": f"{LAYER}+gzip", "zstd": f"{LAYER}+zstd"}
_USUAL = frozenset(["bin", "dev", "etc", "lib", "lib64", "proc", "sbin", "sys", "usr", "var"])
"""Folders that a root filesystem has, and an image's archive has not."""

_FILES, _LINKS, _HEADER_ONLY = b"07\0", b"12", b"123456"
_HARD_LINK, _SPARSE, _FOLDER, _PAX, _LONG_NAME = b"1", b"S", b"5", b"x", b"L"
_EXTENSIONS = b"xgLK"
_OCTAL = re.compile(rb"[0-7]*")
_NAMED = re.compile(r"(?:blobs/sha256/|sha256:)?([0-9a-f]{64})(?:\.json)?")
"""A configuration's name that says its digest (Docker, Podman; Bazel and ko)."""

_OUTSIDE = ".."
_WHOLE = "."

_SAVE_AGAIN = "Save or copy the image again, whole."
_KINDS = "It has to be what `docker save` or `podman save` writes, or a root filesystem's tar."
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
            ImageError: It cannot be read or written, or is not what its digest says.
        """
        with _explained(self._path):
            if layer.digest not in self._names:
                raise LayoutError(f"{layer.digest}: is no layer of this image")
            name = self._names[layer.digest]
            _expect_size(self._files, name, layer)
            with _new_file(file) as write:
                found = _digest(self._files.pieces(name), self._cancelled, write)
                if found != layer.digest:
                    raise LayoutError(f"{layer.digest}: its content has the digest {found}")


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


def _go_on(cancelled: threading.Event) -> None:
    if cancelled.is_set():
        raise ImageError("cancelled")


# What an image consists of.

_Found = tuple[ImageContent, dict[Digest, str]]
"""An image, and the names of its layers' files."""


def _read(files: _Folder | _Tar, platform: str, cancelled: threading.Event) -> _Found:
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


def _saved(files: _Tar, platform: str, cancelled: threading.Event) -> _Found:
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
        images = json.loads(data)
    except (ValueError, RecursionError) as error:
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
    form = _compression(next(files.pieces(name), b""))
    if form not in _MEDIA_TYPES:
        raise LayoutError(f"{short(name)}: is compressed with {form}, which no layer may be")
    digest = _digest(files.pieces(name), cancelled)
    if name.startswith(f"{BLOBS}/") and name != f"{BLOBS}/{hex_of(digest)}":
        raise LayoutError(f"{short(name)}: its content has the digest {digest}")
    return Descriptor(media_type=_MEDIA_TYPES[form], digest=digest, size=size)


def _root(files: _Files, cancelled: threading.Event) -> _Found:
    """Return a root filesystem's tar as an image of one layer."""
    digest = _digest(files.pieces(_WHOLE), cancelled)
    layer = Descriptor(media_type=LAYER, digest=digest, size=files.size(_WHOLE))
    content = ImageContent(digest=digest, layers=(layer,), diff_ids=(digest,), env=())
    return content, {digest: _WHOLE}


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
        _go_on(cancelled)
        hashed.update(piece)
        write(piece)
    _go_on(cancelled)
    return Digest(f"sha256:{hashed.hexdigest()}")


@contextmanager
def _new_file(file: Path) -> Iterator[Callable[[bytes], object]]:
    """Open a file that was not there, and is not there when writing it fails."""
    try:
        with file.open("xb") as out:
            try:
                yield out.write
                out.flush()
            except BaseException:
                file.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise ImageError(
            f"{file}: cannot be written: {error.strerror or error}",
            hint="Is its folder writable for you, is there room?",
        ) from error


# Files by name.


class _Files(Protocol):
    """Where an image's files are. Names are never paths of this machine."""

    def has(self, name: str) -> bool: ...

    def size(self, name: str) -> int: ...

    def pieces(self, name: str) -> Iterator[bytes]: ...

    def close(self) -> None: ...


def _open(path: Path, cancelled: threading.Event) -> _Folder | _Tar:
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
            raise LayoutError("is neither a file nor a folder", hint=_KINDS)
        plain = _plain(file, cancelled)
    try:
        return _Tar(plain, cancelled)
    except BaseException:
        plain.close()
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
            yield from _range(handle, 0, os.fstat(handle).st_size)

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


def _range(handle: int, start: int, size: int) -> Iterator[bytes]:
    """Yield a part of a file; several threads may."""
    end = start + size
    while start < end:
        try:
            piece = os.pread(handle, min(_CHUNK, end - start), start)
        except OSError as error:
            raise LayoutError(f"cannot be read at byte {start}: {error.strerror}") from error
        if not piece:
            raise LayoutError(f"ends at byte {start}, not at {end}")
        yield piece
        start += len(piece)


@dataclass(frozen=True, slots=True)
class _Member:
    """A member of a tar: where its bytes are, or where its link leads."""

    start: int
    size: int
    target: str


class _Tar:
    """A tar's members."""

    def __init__(self, file: IO[bytes], cancelled: threading.Event) -> None:
        self._file = file
        size = os.fstat(file.fileno()).st_size
        whole = _Member(0, size, "")
        self._members = _members(_entries(file.fileno(), size, cancelled))
        self._members[_WHOLE] = whole

    def close(self) -> None:
        self._file.close()

    def has(self, name: str) -> bool:
        return name in self._members

    def size(self, name: str) -> int:
        return self._member(name).size

    def pieces(self, name: str) -> Iterator[bytes]:
        member = self._member(name)
        yield from _range(self._file.fileno(), member.start, member.size)

    def real(self, name: str) -> str:
        """Return the name of the file that a member is, or that its link leads to."""
        if _leads_out(name):
            raise LayoutError(f"{short(name)}: leads out of the archive")
        place = name if name == _WHOLE else _clean(name)
        for _ in range(MOST_LINKS):
            member = self._members.get(place)
            if member is None:
                raise LayoutError(f"{short(name)}: is missing")
            if not member.target:
                return place
            place = member.target
        raise LayoutError(f"{short(name)}: is a link that leads nowhere")

    def _member(self, name: str) -> _Member:
        return self._members[self.real(name)]


def _leads_out(name: str) -> bool:
    return name.startswith("/") or ".." in name.split("/")


def _clean(name: str) -> str:
    """Return a name without detours."""
    words: list[str] = []
    for word in name.split("/"):
        if word == "..":
            if not words:
                return _OUTSIDE
            words.pop()
        elif word not in {"", "."}:
            words.append(word)
    return "/".join(words)


def _members(entries: Iterable[_Entry]) -> dict[str, _Member]:
    """Return a tar's members by name; none when it is a root filesystem."""
    found: dict[str, _Member] = {}
    is_root = has_content = False
    for entry in entries:
        name = _clean(entry.name)
        top, below, _ = name.partition("/")
        is_root = is_root or (top in _USUAL and bool(below or entry.kind not in _FILES))
        has_content = has_content or entry.kind in _FILES + _LINKS + _SPARSE
        if is_root or entry.kind not in _FILES + _LINKS or _leads_out(entry.name) or not name:
            continue
        found[name] = _Member(entry.start, entry.size, _target(entry))
        if len(found) > MOST_NAMES:
            raise LayoutError(f"has more than {MOST_NAMES} files, and no folder of a system")
    if not is_root:
        _check_members(found, has_content=has_content)
    return {} if is_root else found


def _target(entry: _Entry) -> str:
    if entry.kind in _FILES:
        return ""
    if entry.link.startswith("/"):
        return _OUTSIDE
    above = "" if entry.kind == _HARD_LINK else entry.name.rpartition("/")[0]
    return _clean(f"{above}/{entry.link}") or _OUTSIDE


def _check_members(members: Mapping[str, _Member], *, has_content: bool) -> None:
    """Refuse what would be taken for a root filesystem and is none."""
    if not has_content:
        raise LayoutError("is empty: it has no files", hint=_KINDS)
    if "oci-layout" in members or "manifest.json" in members:
        return
    if "repositories" in members:
        raise LayoutError("is an archive of Docker before 1.10", hint="Save the image again.")
    below = [name for name in members if name.count("/") == 1 and name.endswith("/oci-layout")]
    if below:
        raise LayoutError(
            f"has an OCI layout in a folder: {short(below[0])}",
            hint="Pack what is in the folder: tar -C FOLDER -cf FILE.tar .",
        )


# Compression and tar.


def _compression(data: bytes) -> str:
    return next((form for magic, form in _MAGIC.items() if data.startswith(magic)), "")


def _plain(file: IO[bytes], cancelled: threading.Event) -> IO[bytes]:
    """Return another handle of a file, or of a temporary one without a name: decompressed."""
    form = _compression(os.pread(file.fileno(), BLOCK, 0))
    if not form:
        return os.fdopen(os.dup(file.fileno()), "rb", buffering=0)
    if form not in {"gzip", "zstd"}:
        raise LayoutError(f"is compressed with {form}", hint="Decompress it first.")
    out = tempfile.TemporaryFile()  # noqa: SIM115  # the archive's own, closed by it
    try:
        for piece in _bounded(_gzip(file) if form == "gzip" else _zstd(file)):
            _go_on(cancelled)
            out.write(piece)
        out.flush()
    except BaseException:
        out.close()
        raise
    return out


def _bounded(pieces: Iterable[bytes]) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > LARGEST:
            raise LayoutError(
                f"is too large: more than {LARGEST} bytes when decompressed",
                hint="Is it an image at all? What is that large is not read.",
            )
        yield piece


def _gzip(file: IO[bytes]) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=file, mode="rb") as source:
        while True:
            try:
                piece = source.read(_CHUNK)
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise LayoutError(f"is damaged: gzip: {error}") from error
            if not piece:
                return
            yield piece


def _zstd(file: IO[bytes]) -> Iterator[bytes]:
    try:
        import zstandard  # noqa: PLC0415  # few archives need it
    except ImportError as error:
        raise LayoutError(
            "is compressed with zstd", hint="Install the package zstandard, or decompress it."
        ) from error
    frame = None
    while data := file.read(_COMPRESSED_CHUNK):
        while data:
            if frame is None:
                frame = zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()
            try:
                yield frame.decompress(data)
            except zstandard.ZstdError as error:
                raise LayoutError(f"is damaged: zstd: {error}") from error
            data, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
    if frame is not None:
        raise LayoutError("is damaged: zstd: ends in the middle")


@dataclass(frozen=True, slots=True)
class _Entry:
    """A tar's entry (POSIX pax and ustar, GNU tar)."""

    name: str
    kind: bytes
    start: int
    size: int
    link: str


def _entries(handle: int, end: int, cancelled: threading.Event) -> Iterator[_Entry]:
    """Yield a tar's entries.

    Raises:
        LayoutError: It is none, or not a whole one.
    """
    offset = count = 0
    said: dict[bytes, bytes] = {}
    while (block := os.pread(handle, BLOCK, offset)).strip(b"\0"):
        _go_on(cancelled)
        count += 1
        kind, size = block[156:157], _number(block[124:136])
        if count > MOST_ENTRIES:
            raise LayoutError(f"has more than {MOST_ENTRIES} entries")
        if len(block) < BLOCK or size is None or _number(block[148:156]) != _checksum(block):
            if offset:
                raise LayoutError(f"is a damaged tar at byte {offset}")
            raise LayoutError("is no tar", hint=_KINDS)
        if kind in _EXTENSIONS:
            said |= _extension(handle, kind, offset + BLOCK, min(size, end))
            offset = _after(offset + BLOCK, size, end)
            continue
        entry = _entry(handle, block, offset, size, said)
        yield entry
        said = {}
        offset = _after(entry.start, entry.size, end)
    if not count:
        raise LayoutError("is empty", hint=_KINDS)


def _after(start: int, size: int, end: int) -> int:
    if start + size > end:
        raise LayoutError(f"is a truncated tar: it should have {start + size} bytes and has {end}")
    return start + size + -size % BLOCK


def _entry(
    handle: int, block: bytes, offset: int, size: int, said: Mapping[bytes, bytes]
) -> _Entry:
    kind, start, name = block[156:157], offset + BLOCK, _text(block[:100])
    if block[257:263] == b"ustar\0" and block[345]:
        name = _text(block[345:500]) + b"/" + name
    name = said.get(b"path", name)
    if kind == b"\0" and name.endswith(b"/"):
        kind = _FOLDER
    if b"size" in said:
        if not re.fullmatch(rb"[0-9]{1,18}", said[b"size"]):
            raise LayoutError(f"is a damaged tar at byte {offset}: size {short(said[b'size'])}")
        size = int(said[b"size"])
    more = kind == _SPARSE and block[482]
    while more:
        block = os.pread(handle, BLOCK, start)
        start += BLOCK
        more = len(block) == BLOCK and block[504]
    link = said.get(b"linkpath", _text(block[157:257]))
    return _Entry(_decoded(name), kind, start, 0 if kind in _HEADER_ONLY else size, _decoded(link))


def _extension(handle: int, kind: bytes, start: int, size: int) -> dict[bytes, bytes]:
    """Return what is said about the next entry; what is said about all of them is not needed."""
    if size > LARGEST_EXTENSION:
        raise LayoutError(f"is a hostile tar at byte {start}: a name or a record of {size} bytes")
    data = b"".join(_range(handle, start, size))
    if kind in b"LK":
        return {b"path" if kind == _LONG_NAME else b"linkpath": _text(data)}
    return _records(data) if kind == _PAX else {}


def _records(data: bytes) -> dict[bytes, bytes]:
    """Return pax records (POSIX pax, "pax Header Block"), of which three are needed."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        length, _, _ = data[at : at + 10].partition(b" ")
        end = at + int(length) if length.isdigit() else at
        key, equals, value = data[at + len(length) + 1 : end].partition(b"=")
        if end > len(data) or not equals or not value.endswith(b"\n"):
            raise LayoutError(f"is a damaged tar: pax record {short(data[at : at + 40])}")
        if key in {b"path", b"linkpath", b"size"}:
            found[key] = value[:-1]
        at = end
    return found


def _number(field: bytes) -> int | None:
    """Return a header's number; none where there is no positive one."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:])
    text = field.strip(b" \0")
    return int(text or b"0", 8) if _OCTAL.fullmatch(text) else None


def _checksum(block: bytes) -> int:
    return sum(block) - sum(block[148:156]) + 8 * ord(" ")


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _decoded(name: bytes) -> str:
    return name.decode(errors="surrogateescape")
