"""Images out of registries, without a daemon (OCI distribution-spec).

Every answer is untrusted: documents are bounded and compared with their digests, layers hashed on
their way.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
import threading
import time
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from nox_variants.errors import ImageError, ImageUnavailable, LayoutError
from nox_variants.images import content
from nox_variants.images.credentials import Login
from nox_variants.images.reference import Reference, address, parse_reference
from nox_variants.images.transient import LATER, TransientError, tried
from nox_variants.images.transport import (
    BrokenError,
    Transport,
    UnreachableError,
    backoff,
)
from nox_variants.oci import digest as digests
from nox_variants.oci.digest import sha256_bytes, short

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from requests import Response

    from nox_variants.images.content import Blobs, Descriptor, ImageContent

_ATTEMPTS = 5
"""Attempts in a row that gain nothing."""

_MOST_ATTEMPTS = 50
_NOTE_EVERY = 2.0
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", re.ASCII)


class Registries:
    """The registries of a run: sessions, tokens, and which of them cannot be reached.

    Threads may share it.

    Args:
        environ: The environment: proxies, authorities, where docker's configuration is.
        progress: Told what takes long.
        cancelled: Ends every transfer.
    """

    def __init__(
        self,
        *,
        environ: Mapping[str, str],
        progress: Callable[[str], None],
        cancelled: threading.Event,
    ) -> None:
        self._environ = environ
        self._transport = Transport(environ, progress, cancelled)
        self._lock = threading.Lock()
        self._sites: dict[tuple[str, bool], _Site] = {}

    def image(self, reference: str, platform: str, *, insecure: bool = False) -> ImageContent:
        """Return what an image consists of, verified; its layers are fetched separately.

        Args:
            reference: The image, by tag or by digest.
            platform: ``linux/amd64``: which one of an index.
            insecure: Whether the registry is asked over plain HTTP.

        Raises:
            ImageUnavailable: Its registry cannot be reached from here.
            ImageError: The registry refused, or what it has is not an image for this platform.
        """
        named = parse_reference(reference)
        site = self._site(named.registry, insecure=insecure)
        site.check_reachable(reference)
        try:
            with _about(reference):
                return _image(site, reference, named, platform)
        except UnreachableError as error:
            raise site.unavailable(reference, str(error)) from None

    def blobs(self, reference: str, *, insecure: bool = False) -> Blobs:
        """Return where the layers of an image come from.

        Raises:
            ImageError: It is no reference.
        """
        named = parse_reference(reference)
        return _Layers(self._site(named.registry, insecure=insecure), reference, named.repository)

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def _site(self, registry: str, *, insecure: bool) -> _Site:
        with self._lock:
            key = (registry, insecure)
            if key not in self._sites:
                login = Login(
                    registry, insecure=insecure, environ=self._environ, transport=self._transport
                )
                self._sites[key] = _Site(
                    registry, insecure=insecure, transport=self._transport, login=login
                )
            return self._sites[key]


def _image(site: _Site, where: str, named: Reference, platform: str) -> ImageContent:
    digest = digests.parse(named.digest) if named.digest else None
    data, headers = site.document(
        where, named.repository, f"manifests/{digest or named.tag}", manifest=True
    )
    told = headers.get("Docker-Content-Digest", "")
    if digest is None and told.startswith("sha256:") and told != sha256_bytes(data):
        raise LayoutError(
            f"the manifest has the digest {sha256_bytes(data)}, not {short(told)} as announced"
        )
    manifest = content.document(data, digest)
    digest = sha256_bytes(data)
    if content.is_index(manifest, _media_type(headers)):
        entry = content.choose(manifest, platform)
        digest = entry.digest
        manifest, headers = _described(site, where, named.repository, entry, manifest=True)
        if content.is_index(manifest, entry.media_type or _media_type(headers)):
            raise LayoutError(f"{digest}: an index in an index is not read")
    config, layers = content.parts(manifest)
    settings, _ = _described(site, where, named.repository, config, manifest=False)
    return content.image(digest, layers, settings, platform)


def _described(
    site: _Site, where: str, repository: str, entry: Descriptor, *, manifest: bool
) -> tuple[dict[str, Any], Mapping[str, str]]:
    """Return a document that a descriptor names."""
    if entry.size > content.LARGEST_MANIFEST:
        raise LayoutError(f"{entry.digest}: {entry.size} bytes are too many for a document")
    path = f"{'manifests' if manifest else 'blobs'}/{entry.digest}"
    data, headers = site.document(where, repository, path, manifest=manifest)
    return content.document(data, entry.digest, entry.size), headers


@contextlib.contextmanager
def _about(where: str) -> Iterator[None]:
    """Say of which image something malformed is."""
    try:
        yield
    except LayoutError as error:
        raise ImageError(f"{where}: {error.message}", hint=error.hint) from error


class _Site:
    """One registry."""

    def __init__(
        self, registry: str, *, insecure: bool, transport: Transport, login: Login
    ) -> None:
        self.registry = registry
        self.transport = transport
        self._login = login
        self._base = address(registry, insecure=insecure)
        self._lock = threading.Lock()
        self._unreachable = ""

    def check_reachable(self, where: str) -> None:
        with self._lock:
            if self._unreachable:
                raise ImageUnavailable(f"{where}: {self._unreachable}")

    def unavailable(self, where: str, host: str) -> ImageUnavailable:
        """Return the error, and say it once."""
        own = urlsplit(self._base).netloc == host
        name = f"registry {self.registry}"
        reason = f"{name if own else f'{host}, which {name} needs,'} cannot be reached from here"
        with self._lock:
            if not self._unreachable:
                self._unreachable = reason
                self.transport.progress(reason)
            return ImageUnavailable(f"{where}: {self._unreachable}")

    def document(
        self, where: str, repository: str, path: str, *, manifest: bool
    ) -> tuple[bytes, Mapping[str, str]]:
        """Return a bounded answer and its headers."""
        accept = {"Accept": ", ".join(content.MANIFESTS + content.INDEXES)} if manifest else {}
        attempt = 0
        while True:
            attempt += 1
            try:
                with contextlib.closing(self.get(where, repository, path, accept)) as answer:
                    data = self.transport.body(answer, content.LARGEST_MANIFEST)
            except BrokenError as error:
                if attempt == _ATTEMPTS:
                    raise self.broken(where, str(error), attempt) from None
                self.transport.wait(where, f"registry {self.registry}: {error}", backoff(attempt))
                continue
            if len(data) > content.LARGEST_MANIFEST:
                raise ImageError(f"{where}: {path}: more than {content.LARGEST_MANIFEST} bytes")
            return data, answer.headers

    def get(self, where: str, repository: str, path: str, headers: Mapping[str, str]) -> Response:
        """Return an answer that has content, or that the asked range is none.

        Raises:
            ImageError: The registry refused.
        """
        url = f"{self._base}/{repository}/{path}"
        answer = self._login.ask(where, repository, url, headers)
        if answer.status_code in ({200, 206, 416} if "Range" in headers else {200}):
            return answer
        raise self._refusal(where, path, answer)

    def _refusal(self, where: str, path: str, answer: Response) -> ImageError:
        missing = "there is no such image or tag"
        if path.startswith("blobs/"):
            missing = f"the registry does not have {path.removeprefix('blobs/')}"
        with contextlib.closing(answer):
            return self.transport.refusal(where, self.registry, answer, missing)

    def broken(self, where: str, reason: str, times: int) -> TransientError:
        return TransientError(
            f"{where}: registry {self.registry}: {reason}, again and again ({tried(times)})",
            hint=LATER,
        )


class _Layers:
    """The layers of a repository (content.Blobs)."""

    def __init__(self, site: _Site, reference: str, repository: str) -> None:
        self._site = site
        self._transport = site.transport
        self._where = reference
        self._repository = repository

    def fetch(self, layer: Descriptor, file: Path) -> None:
        """Write a layer into a new file, verified.

        Raises:
            ImageError: It cannot be had, or is not what its digest says.
            OSError: The file cannot be written.
        """
        with content.new_file(file) as out:
            self._fetch(_Transfer(out, layer))

    def _fetch(self, transfer: _Transfer) -> None:
        self._complete(transfer)
        if transfer.problem():
            transfer.restart()
            self._complete(transfer)
        if problem := transfer.problem():
            transfer.restart()
            raise ImageError(f"{self._where}: layer {transfer.layer.digest}: {problem}")

    def _complete(self, transfer: _Transfer) -> None:
        """Read until all is there, from where it broke."""
        best = idle = 0
        where = f"{self._where}: layer {transfer.layer.digest}"
        for times in itertools.count(1):
            try:
                self._read(transfer)
            except BrokenError as error:
                reason = str(error)
            except UnreachableError as error:
                reason = f"{error} cannot be reached any more"
            else:
                reason = "the connection ended early"
            if transfer.done >= transfer.layer.size:
                return
            idle = 0 if transfer.done > best else idle + 1
            best = max(best, transfer.done)
            if idle == _ATTEMPTS or times == _MOST_ATTEMPTS:
                raise self._site.broken(where, reason, times)
            why = f"registry {self._site.registry}: {reason}"
            self._transport.wait(where, why, backoff(idle or 1))

    def _read(self, transfer: _Transfer) -> None:
        """Read what one answer gives."""
        start = transfer.done
        headers = {"Range": f"bytes={start}-"} if start else {}
        path = f"blobs/{transfer.layer.digest}"
        with contextlib.closing(
            self._site.get(self._where, self._repository, path, headers)
        ) as answer:
            if answer.status_code != 206:  # noqa: PLR2004  # Partial Content
                transfer.restart()
            if answer.status_code == 416:  # noqa: PLR2004  # Range Not Satisfiable
                raise BrokenError("the rest of a layer is refused")
            if answer.status_code == 206 and not _continues(  # noqa: PLR2004
                answer.headers.get("Content-Range", ""), start, transfer.layer.size
            ):
                transfer.restart()
                raise BrokenError("another part of a layer came than the one asked for")
            for data in self._transport.chunks(answer):
                transfer.write(data)
                if transfer.done > transfer.layer.size:
                    return
                if note := transfer.note():
                    self._transport.progress(f"{self._where}: {note}")


class _Transfer:
    """What has come of a layer."""

    def __init__(self, out: IO[bytes], layer: Descriptor) -> None:
        self.layer = layer
        self.done = 0
        self._out = out
        self._hash = hashlib.sha256()
        self._said = time.monotonic()

    def restart(self) -> None:
        self._out.seek(0)
        self._out.truncate()
        self._hash = hashlib.sha256()
        self.done = 0

    def write(self, data: bytes) -> None:
        self.done += len(data)
        if self.done <= self.layer.size:
            self._hash.update(data)
            self._out.write(data)

    def problem(self) -> str:
        """Return why it is not the layer."""
        if self.done > self.layer.size:
            return f"has more than its {self.layer.size} bytes"
        found = f"sha256:{self._hash.hexdigest()}"
        return "" if found == self.layer.digest else f"its content has the digest {found}"

    def note(self) -> str:
        """Return now and then how far it is."""
        if time.monotonic() < self._said + _NOTE_EVERY:
            return ""
        self._said = time.monotonic()
        amount = f"{self.done / 1e6:.0f} of {self.layer.size / 1e6:.0f} MB"
        return f"pulling layer {self.layer.digest[:19]}, {amount}"


def _continues(header: str, start: int, size: int) -> bool:
    """Tell whether a ``Content-Range`` is the rest that was asked for (RFC 9110, section 14.4)."""
    match = _CONTENT_RANGE.fullmatch(header.strip())
    if not match:
        return False
    first, last = int(match[1]), int(match[2])
    return first == start <= last < size and match[3] in {"*", str(size)}


def _media_type(headers: Mapping[str, str]) -> str:
    return headers.get("Content-Type", "").partition(";")[0].strip().lower()
