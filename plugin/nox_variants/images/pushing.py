"""Images into registries, without a daemon (OCI distribution-spec, "Push").

A tag is set last: what breaks off leaves none that leads to half an image. What a registry has
already is not sent again. Credentials and addresses are kept to :mod:`.transport`'s rules.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from typing import IO, TYPE_CHECKING, TypeVar
from urllib.parse import urlencode, urlsplit

from nox_variants.errors import ImageError, ImageUnavailable
from nox_variants.images.credentials import Login
from nox_variants.images.reference import address
from nox_variants.images.transient import STATUSES, STATUSES_OF_WHAT_IS_SENT, TransientError, tried
from nox_variants.images.transport import (
    PUSH,
    BrokenError,
    NoTlsError,
    Sent,
    Transport,
    UnreachableError,
    backoff,
    destination,
)
from nox_variants.oci.digest import sha256_bytes, short
from nox_variants.oci.image import MANIFEST

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Mapping

    from requests import Response

    from nox_variants.images.content import Descriptor
    from nox_variants.model import Digest

_T = TypeVar("_T")

_ATTEMPTS = 5
"""Attempts at the same before it is given up."""

BEGUN_ANEW = STATUSES.keys() - STATUSES_OF_WHAT_IS_SENT
"""Answers after which nobody knows what was taken: with an upload of its own, it does not matter.
The others that may pass are tried again by the transport."""

_PIECE = 1 << 16
"""Bytes that have to be on their way within the time that a connection gets."""

_NOTE_EVERY = 2.0

_HEAD, _POST = Sent(method="HEAD"), Sent(method="POST")
_OK, _CREATED, _ACCEPTED, _BAD, _NOT_FOUND, _RANGE = 200, 201, 202, 400, 404, 416


class Pusher:
    """What is pushed to one registry in one run.

    Args:
        registry: The registry.
        insecure: Whether it is asked over plain HTTP.
        environ: The environment: proxies, authorities, where docker's configuration is.
        progress: Told what takes long.
        cancelled: Ends everything.
    """

    def __init__(
        self,
        registry: str,
        *,
        insecure: bool,
        environ: Mapping[str, str],
        progress: Callable[[str], None],
        cancelled: threading.Event,
    ) -> None:
        self._registry = registry
        self._transport = Transport(environ, progress, cancelled)
        self._login = Login(
            registry,
            insecure=insecure,
            environ=environ,
            transport=self._transport,
            pushing=True,
        )
        self._base = address(registry, insecure=insecure)
        self._insecure = insecure
        self._reached = False
        self._unreachable = ""
        self._homes: dict[Digest, list[str]] = {}
        """The repositories that are known to have a blob."""

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def tells(self, where: str, repository: str, tag: str, digest: Digest) -> bool:
        """Tell whether a tag leads to a manifest already.

        Args:
            where: The image, for messages.
            repository: Where it may be.
            tag: Its tag.
            digest: The manifest's digest.

        Raises:
            ImageError: The registry cannot be asked.
        """
        path = f"{repository}/manifests/{tag}"
        return self._tried(where, lambda: self._head(where, repository, path)) == digest

    def blob(
        self, where: str, repository: str, blob: Descriptor, content: Callable[[], IO[bytes]]
    ) -> None:
        """Have a blob in a repository: found there, mounted from another one, or sent.

        Args:
            where: The image, for messages.
            repository: Where it goes.
            blob: What it is.
            content: Opens its bytes; called when they have to be sent.

        Raises:
            ImageError: The registry did not take it.
        """
        homes = self._homes.setdefault(blob.digest, [])
        if repository not in homes:
            self._tried(where, lambda: self._blob(where, repository, blob, content))
            homes.append(repository)

    def manifest(self, where: str, repository: str, tag: str, data: bytes) -> Digest:
        """Set a tag to a manifest whose blobs are all there, and look whether it is.

        Args:
            where: The image, for messages.
            repository: Where it goes.
            tag: Its tag.
            data: The manifest.

        Raises:
            ImageError: The registry did not take it.
        """
        return self._tried(where, lambda: self._manifest(where, repository, tag, data))

    def _blob(
        self, where: str, repository: str, blob: Descriptor, content: Callable[[], IO[bytes]]
    ) -> None:
        if self._head(where, repository, f"{repository}/blobs/{blob.digest}") is not None:
            return
        uploads = f"{self._base}/{repository}/blobs/uploads/"
        location = ""
        for home in self._homes[blob.digest][:1]:
            query = urlencode({"mount": blob.digest, "from": home})
            with self._asked(where, repository, f"{uploads}?{query}", {}, _POST) as answer:
                if answer.status_code == _CREATED:
                    return
                if answer.status_code == _ACCEPTED:
                    location = _location(where, answer)
        with content() as file:  # opened first: no registry waits while something is compressed
            location = location or self._begun(where, repository, uploads)
            self._upload(where, repository, location, blob, file)

    def _begun(self, where: str, repository: str, uploads: str) -> str:
        """Return where a blob is to be sent."""
        with self._asked(where, repository, uploads, {}, _POST) as answer:
            if answer.status_code != _ACCEPTED:
                raise self._refused(where, answer)
            return _location(where, answer)

    def _upload(
        self, where: str, repository: str, location: str, blob: Descriptor, file: IO[bytes]
    ) -> None:
        """Send a blob at once ("Pushing a blob monolithically": POST then PUT)."""
        url = f"{location}{'&' if urlsplit(location).query else '?'}"
        url += urlencode({"digest": blob.digest})
        sent = Sent(method="PUT", size=blob.size, pieces=lambda: self._pieces(where, blob, file))
        headers = {"Content-Type": "application/octet-stream"}
        with self._asked(where, repository, url, headers, sent) as answer:
            # Of what a proxy said "not now" to, the registry may have taken a part.
            lost = {_NOT_FOUND, _BAD, _RANGE} if answer.history else {_NOT_FOUND}
            if answer.status_code in lost:
                raise BrokenError("it does not go on with the upload that it had begun")
            if not _taken(answer):
                raise self._refused(where, answer)

    def _pieces(self, where: str, blob: Descriptor, file: IO[bytes]) -> Iterator[bytes]:
        done, said = 0, time.monotonic()
        file.seek(0)
        while data := file.read(_PIECE):
            self._transport.pause(0)
            yield data
            done += len(data)
            if time.monotonic() > said + _NOTE_EVERY:
                said = time.monotonic()
                amount = f"{done / 1e6:.0f} of {blob.size / 1e6:.0f} MB"
                self._transport.progress(f"{where}: pushing {blob.digest[:19]}, {amount}")

    def _manifest(self, where: str, repository: str, tag: str, data: bytes) -> Digest:
        digest = sha256_bytes(data)
        url = f"{self._base}/{repository}/manifests/{tag}"
        sent = Sent(method="PUT", size=len(data), pieces=lambda: (data,))
        with self._asked(where, repository, url, {"Content-Type": MANIFEST}, sent) as answer:
            if not _taken(answer):
                raise self._refused(where, answer)
            told = answer.headers.get("Docker-Content-Digest", digest)
        if told != digest:
            raise ImageError(f"{where}: registry {self._registry} made {short(told)} of {digest}")
        if self._head(where, repository, f"{repository}/manifests/{digest}") is None:
            raise BrokenError("it does not have the manifest that it took")
        return digest

    def _head(self, where: str, repository: str, path: str) -> str | None:
        """Return the digest of what is there, empty where none is told; None where nothing is.

        A registry that does not say is one that does not have it: what is sent then tells why.
        """
        url = f"{self._base}/{path}"
        with self._asked(where, repository, url, {"Accept": MANIFEST}, _HEAD) as answer:
            if answer.status_code != _OK:
                return None
            return answer.headers.get("Docker-Content-Digest", "")

    @contextlib.contextmanager
    def _asked(
        self, where: str, repository: str, url: str, headers: Mapping[str, str], sent: Sent
    ) -> Iterator[Response]:
        """Yield an answer, for as long as the block lasts."""
        answer = self._login.ask(where, repository, url, headers, sent)
        self._reached = True
        with contextlib.closing(answer):
            yield answer

    def _tried(self, where: str, work: Callable[[], _T]) -> _T:
        """Return what work returns; it is begun anew where a connection breaks."""
        if self._unreachable:
            raise ImageUnavailable(f"{where}: {self._unreachable}")
        for attempt in itertools.count(1):
            try:
                return work()
            except BrokenError as error:
                reason = str(error)
            except UnreachableError as error:
                reason = f"{error} cannot be reached any more"
                if not self._reached:
                    self._unreachable = f"{error} cannot be reached from here"
                    raise ImageUnavailable(
                        f"{where}: {self._unreachable}",
                        hint="Is the name right, and the network up?",
                    ) from None
            except NoTlsError as error:
                raise ImageError(error.message, hint="Give --insecure for plain HTTP.") from None
            why = f"registry {self._registry}: {reason}"
            if attempt == _ATTEMPTS:
                raise TransientError(
                    f"{where}: {why}, again and again ({tried(attempt)})",
                    hint="It may pass: try again later.",
                )
            self._transport.wait(where, why, backoff(attempt))
        raise AssertionError  # it counts without an end

    def _refused(self, where: str, answer: Response) -> Exception:
        """Return what an answer that is none means."""
        if answer.status_code in BEGUN_ANEW:
            return BrokenError(f"it failed with {answer.status_code}")
        match answer.status_code:
            case 400:
                what, hint = "does not take it", ""
            case 404:
                what = "has no such repository"
                hint = "Make it there, or correct --to: it makes none by itself."
            case 405:
                what = "takes nothing"
                hint = "Is it a mirror or a cache? Push to the registry behind it."
            case 409 | 412:
                what, hint = "does not let the tag be set", "Is it one that may not be changed?"
            case 413:
                what = "takes nothing so large"
                hint = "The limit is the registry's, or that of a proxy in front of it."
            case _:
                return self._transport.refusal(where, self._registry, answer, "", PUSH)
        said = self._transport.said(answer)
        if answer.status_code == _BAD and self._insecure and not said:
            hint = "Does it speak TLS? Then leave out --insecure."
        text = f"{where}: registry {self._registry} {what}{f': {said}' if said else ''}"
        return ImageError(text, hint=hint)


def _location(where: str, answer: Response) -> str:
    return destination(where, answer.url, answer.headers.get("Location", ""))


def _taken(answer: Response) -> bool:
    return _OK <= answer.status_code < 300  # noqa: PLR2004  # all of 2xx, as docker takes it
