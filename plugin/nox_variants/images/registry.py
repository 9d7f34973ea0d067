"""Images out of registries, without a daemon (OCI distribution-spec; Docker's token scheme).

Every answer is untrusted: documents are bounded and compared with their digests, layers hashed on
their way, redirects followed by hand so that credentials stay where they belong. No error and no
note carries a token, a password or the query of an address.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import http.cookiejar
import ipaddress
import json
import os
import re
import shutil
import ssl
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlencode, urljoin, urlsplit

from nox_variants.errors import ImageError, ImageUnavailable, LayoutError
from nox_variants.images import content
from nox_variants.oci import digest as digests
from nox_variants.oci.digest import sha256_bytes, short

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from requests import Response, Session

    from nox_variants.images.content import Blobs, Descriptor, ImageContent
    from nox_variants.model import Pairs

HUB = "docker.io"
_HUB_HOST = "registry-1.docker.io"

_CERTIFICATES = Path("/etc/docker/certs.d")
"""Where docker keeps a registry's own authority (docker's "Verify repository client")."""

_CONNECT = 10.0
"""Seconds until a host counts as out of reach."""

_READ = 30.0
"""Seconds without a byte after which a connection counts as broken."""

_ATTEMPTS = 5
"""Attempts in a row that gain nothing."""

_MOST_ATTEMPTS = 50
_TRIES = 4
"""Requests in a row that are answered "not now"."""

_PATIENCE = 60.0
"""Seconds that one request waits in all because a registry says so."""

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0
_NOTE_EVERY = 2.0
_REDIRECTS = 5
_CHUNK = 1 << 20
_LONGEST_ANSWER = 1 << 20
"""Bytes of a token's or an error's document."""

_LONGEST_HEADER = 8192
_TOKEN_LIFE = 60.0
"""Seconds that a token lives which does not say it (distribution, "Token Authentication")."""

_LONGEST_LIFE = 24 * 3600.0
_LONGEST_REPOSITORY = 255

_MOVED = frozenset({301, 302, 303, 307, 308})
_NOT_NOW = frozenset({429, 502, 503, 504})
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"})
"""What OpenSSL says of an answer in plain text, by its version."""

_HOST = re.compile(
    r"(?:(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)"
    r"(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[(?P<address>[0-9a-fA-F:]+)\])(?::(?P<port>[0-9]{1,5}))?"
)
_REPOSITORY = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
)
_TAG = re.compile(r"[\w][\w.-]{0,127}", re.ASCII)
_ID = re.compile(r"library/[0-9a-f]{64}")

_CHALLENGE = re.compile(
    r"(?P<name>[\w!#$%&'*+.^`|~-]++)"
    r'(?:\s*+=\s*+(?:"(?P<quoted>(?:[^"\\]|\\.)*+)"|(?P<plain>[^\s,"]++)))?',
    re.ASCII,
)
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", re.ASCII)
_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The name of an image in a registry (distribution/reference).

    Attributes:
        registry: ``docker.io``, ``registry.example.com:5000``.
        repository: ``library/ubuntu``.
        tag: ``24.04``; empty with a digest only.
        digest: ``sha256:...`` or empty.
    """

    registry: str
    repository: str
    tag: str
    digest: str


def parse_reference(text: str) -> Reference:
    """Return what a reference means; what it leaves out is docker.io, library and latest.

    Raises:
        ImageError: It is no reference.
    """
    name, at, digest = text.partition("@")
    registry, slash, path = name.partition("/")
    if not (slash and (registry == "localhost" or "." in registry or ":" in registry)):
        registry, path = HUB, name
    repository, colon, tag = path.partition(":")
    if registry in {HUB, f"index.{HUB}"}:
        registry = HUB
        repository = repository if "/" in repository else f"library/{repository}"
    if problem := _problem(registry, repository, tag if colon else "latest"):
        raise ImageError(f"{short(text)}: is no image reference: {problem}")
    if at:
        try:
            digests.parse(digest)
        except LayoutError as error:
            raise ImageError(f"{short(text)}: is no image reference: {error}") from error
    tag = tag if colon or at else "latest"
    return Reference(registry=registry, repository=repository, tag=tag, digest=digest)


def _problem(registry: str, repository: str, tag: str) -> str:
    """Return what is wrong with the parts of a reference."""
    if not _is_host(registry):
        return f"registry {short(registry)}"
    if len(repository) > _LONGEST_REPOSITORY:
        return f"repository of more than {_LONGEST_REPOSITORY} characters"
    if not _REPOSITORY.fullmatch(repository) or (registry == HUB and _ID.fullmatch(repository)):
        return f"repository {short(repository)}" + (
            ", which has to be lower-case" if repository != repository.lower() else ""
        )
    return "" if _TAG.fullmatch(tag) else f"tag {short(tag)}"


def _is_host(registry: str) -> bool:
    """Tell whether a text is a host, perhaps with a port."""
    match = _HOST.fullmatch(registry)
    if not match or not 0 < int(match["port"] or 1) < 1 << 16:
        return False
    try:
        return match["address"] is None or bool(ipaddress.IPv6Address(match["address"]))
    except ValueError:
        return False


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
        self._line = _Line(environ, progress, cancelled)
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
        except _UnreachableError as error:
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
        self._line.close()

    def _site(self, registry: str, *, insecure: bool) -> _Site:
        with self._lock:
            key = (registry, insecure)
            if key not in self._sites:
                login = _Login(registry, insecure=insecure, environ=self._environ, line=self._line)
                self._sites[key] = _Site(registry, insecure=insecure, line=self._line, login=login)
            return self._sites[key]


class _BrokenError(Exception):
    """A connection broke: another attempt may do."""


class _UnreachableError(Exception):
    """A host cannot be reached; the text is its name."""


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

    def __init__(self, registry: str, *, insecure: bool, line: _Line, login: _Login) -> None:
        self.registry = registry
        self.line = line
        self._login = login
        scheme = "http" if insecure else "https"
        self._base = f"{scheme}://{_HUB_HOST if registry == HUB else registry}/v2"
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
                self.line.progress(reason)
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
                    data = self.line.body(answer, content.LARGEST_MANIFEST)
            except _BrokenError as error:
                if attempt == _ATTEMPTS:
                    raise self.broken(where, str(error)) from None
                self.line.pause(_backoff(attempt))
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
        authorization = self._login.current(repository)
        answer = self.line.ask(where, url, {**headers, **_authorized(authorization)})
        if answer.status_code == 401 and _origin(answer.url) == _origin(url):  # noqa: PLR2004
            refusal = self._refusal(where, path, answer)
            challenge = answer.headers.get("WWW-Authenticate", "")
            renewed = self._login.renewed(where, repository, authorization, challenge)
            if not renewed:
                raise refusal
            answer = self.line.ask(where, url, {**headers, **_authorized(renewed)})
        if answer.status_code in ({200, 206, 416} if "Range" in headers else {200}):
            return answer
        raise self._refusal(where, path, answer)

    def _refusal(self, where: str, path: str, answer: Response) -> ImageError:
        missing = "there is no such image or tag"
        if path.startswith("blobs/"):
            missing = f"the registry does not have {path.removeprefix('blobs/')}"
        with contextlib.closing(answer):
            return self.line.refusal(where, self.registry, answer, missing)

    def broken(self, where: str, reason: str) -> ImageError:
        return ImageError(
            f"{where}: registry {self.registry}: {reason}, again and again",
            hint="It may pass: try again later.",
        )


class _Layers:
    """The layers of a repository (content.Blobs)."""

    def __init__(self, site: _Site, reference: str, repository: str) -> None:
        self._site = site
        self._line = site.line
        self._where = reference
        self._repository = repository

    def fetch(self, layer: Descriptor, file: Path) -> None:
        """Write a layer into a new file, verified.

        Raises:
            ImageError: It cannot be had, or is not what its digest says.
        """
        try:
            with file.open("xb") as out:
                try:
                    self._fetch(_Transfer(out, layer))
                    out.flush()
                except BaseException:
                    file.unlink(missing_ok=True)
                    raise
        except OSError as error:
            raise ImageError(
                f"{self._where}: layer {layer.digest}: cannot be written: {error.strerror}"
            ) from error

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
        reason = ""
        for _ in range(_MOST_ATTEMPTS):
            try:
                self._read(transfer)
            except _BrokenError as error:
                reason = str(error)
            except _UnreachableError as error:
                reason = f"{error} cannot be reached any more"
            else:
                reason = "the connection ended early"
            if transfer.done >= transfer.layer.size:
                return
            idle = 0 if transfer.done > best else idle + 1
            best = max(best, transfer.done)
            if idle == _ATTEMPTS:
                break
            self._line.pause(_backoff(idle or 1))
        raise self._site.broken(f"{self._where}: layer {transfer.layer.digest}", reason)

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
                raise _BrokenError("the rest of a layer is refused")
            if answer.status_code == 206 and not _continues(  # noqa: PLR2004
                answer.headers.get("Content-Range", ""), start, transfer.layer.size
            ):
                transfer.restart()
                raise _BrokenError("another part of a layer came than the one asked for")
            for data in self._line.chunks(answer):
                transfer.write(data)
                if transfer.done > transfer.layer.size:
                    return
                if note := transfer.note():
                    self._line.progress(f"{self._where}: {note}")


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


class _Login:
    """What a registry is told about who asks: nothing before it wants to know."""

    def __init__(
        self, registry: str, *, insecure: bool, environ: Mapping[str, str], line: _Line
    ) -> None:
        self._registry = registry
        self._insecure = insecure
        self._environ = environ
        self._line = line
        self._lock = threading.Lock()
        self._known: dict[str, tuple[str, float]] = {}
        """Header and end of its life, by repository: each has a scope of its own."""
        self._found: _Credentials | None = None

    def current(self, repository: str) -> str:
        """Return the header that is still valid, or nothing."""
        header, end = self._known.get(repository, ("", 0.0))
        return header if time.monotonic() < end else ""

    def renewed(self, where: str, repository: str, refused: str, challenge: str) -> str:
        """Return a header other than the refused one, or nothing where there is none.

        Args:
            where: The image, for messages.
            repository: The repository that is asked for.
            refused: The header that did not do.
            challenge: What the registry wants.
        """
        with self._lock:
            header = self.current(repository)
            if not header or header == refused:
                header, life = self._answer(where, repository, challenge)
                self._line.secrets.add(header.partition(" ")[2])
                self._known[repository] = (header, time.monotonic() + life)
            return header

    def _answer(self, where: str, repository: str, challenge: str) -> tuple[str, float]:
        offered = {scheme: dict(values) for scheme, values in reversed(challenges(challenge))}
        if "bearer" in offered:
            return self._token(where, repository, offered["bearer"])
        if "basic" in offered:
            return self._credentials(where).basic(), float("inf")
        return "", 0.0

    def _token(self, where: str, repository: str, wanted: Mapping[str, str]) -> tuple[str, float]:
        """Ask the token server that the registry names (distribution, "Token Authentication")."""
        realm = wanted.get("realm", "")
        origin = _origin(realm)
        if origin is None or (origin[0] != "https" and not self._insecure):
            raise ImageError(
                f"{where}: registry {self._registry} wants tokens of {_shown(realm)}, "
                "which is no https address"
            )
        scopes = (wanted.get("scope") or f"repository:{repository}:pull").split()
        service = wanted.get("service", "")
        login = self._credentials(where)
        if login.identity:
            form = {"grant_type": "refresh_token", "refresh_token": login.identity}
            form |= {"service": service, "scope": " ".join(scopes), "client_id": "nox-variants"}
            answer = self._line.ask(where, realm, {}, form)
        else:
            query = urlencode([("service", service), *(("scope", each) for each in scopes)])
            url = f"{realm}{'&' if urlsplit(realm).query else '?'}{query}"
            answer = self._line.ask(where, url, _authorized(login.basic()))
        with contextlib.closing(answer):
            if answer.status_code != 200:  # noqa: PLR2004
                raise self._line.refusal(where, self._registry, answer, "no tokens are given")
            return self._read(where, self._line.body(answer, _LONGEST_ANSWER))

    def _read(self, where: str, data: bytes) -> tuple[str, float]:
        try:
            values = json.loads(data)
        except (ValueError, RecursionError):
            values = None
        values = values if isinstance(values, dict) else {}
        token = values.get("token") or values.get("access_token")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise ImageError(f"{where}: the token server of {self._registry} gave no token")
        life = values.get("expires_in")
        if isinstance(life, bool) or not isinstance(life, int | float) or not life > 0:
            life = _TOKEN_LIFE
        return f"Bearer {token}", min(life, _LONGEST_LIFE)

    def _credentials(self, where: str) -> _Credentials:
        if self._found is None:
            self._found = _credentials(where, self._registry, self._environ)
            self._line.secrets |= self._found.secrets()
        return self._found


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class _Credentials:
    """What docker knows about who asks; all empty where it knows nothing."""

    user: str = ""
    password: str = ""
    identity: str = ""

    def basic(self) -> str:
        """Return the header of RFC 7617, or nothing."""
        if not self.user:
            return ""
        return f"Basic {base64.b64encode(f'{self.user}:{self.password}'.encode()).decode()}"

    def secrets(self) -> set[str]:
        return {self.password, self.identity, self.basic().removeprefix("Basic ")}


def _credentials(where: str, registry: str, environ: Mapping[str, str]) -> _Credentials:
    """Return what docker's configuration has for a registry.

    Raises:
        ImageError: The configuration or a credential helper does not work.
    """
    from docker import auth  # noqa: PLC0415  # 0.1 s, and few images need it
    from docker.errors import DockerException  # noqa: PLC0415

    file = _configuration(environ)
    if file is None:
        return _Credentials()
    try:
        values = json.loads(file.read_bytes())
        if not values:
            return _Credentials()
        config = auth.load_config(config_dict=values, credstore_env=dict(environ))
    except (OSError, ValueError, TypeError, AttributeError, DockerException) as error:
        what = error.strerror if isinstance(error, OSError) else type(error).__name__
        raise ImageError(
            f"{where}: {file}: cannot be read: {what}",
            hint=f"Mend it, or log in again: {_login_hint(registry)}.",
        ) from None
    helper = config.get_credential_store(registry)
    program = f"docker-credential-{helper}"
    if helper and shutil.which(program, path=environ.get("PATH")) is None:
        raise ImageError(
            f"{where}: {registry} wants a login, and {file} names {program}, which is not on PATH",
            hint=f"Install it, or take it out of {file} and run {_login_hint(registry)}.",
        )
    try:
        found = auth.resolve_authconfig(config, registry, credstore_env=dict(environ)) or {}
    except (DockerException, ValueError, KeyError, TypeError, OSError):
        # Its words may hold what it was to keep: they are not repeated.
        raise ImageError(
            f"{where}: {registry} wants a login, and {program} failed",
            hint=f"Does {program} list work? Else {_login_hint(registry)}.",
        ) from None
    texts = {str(name).lower(): str(value or "") for name, value in found.items()}
    return _Credentials(
        user=texts.get("username", ""),
        password=texts.get("password", ""),
        identity=texts.get("identitytoken", ""),
    )


def _configuration(environ: Mapping[str, str]) -> Path | None:
    """Return docker's configuration file; None where there is none."""
    folder, home = environ.get("DOCKER_CONFIG"), environ.get("HOME")
    if not folder and not home:
        return None
    file = (Path(folder) if folder else Path(str(home), ".docker")) / "config.json"
    return file if os.path.lexists(file) else None


class _Line:
    """HTTP as this run may use it: its proxies, its authorities, its patience."""

    def __init__(
        self,
        environ: Mapping[str, str],
        progress: Callable[[str], None],
        cancelled: threading.Event,
    ) -> None:
        self.progress = progress
        self.secrets: set[str] = set()
        """What is blotted out where a server repeats it."""
        self._environ = environ
        self._cancelled = cancelled
        self._lock = threading.Lock()
        self._session: Session | None = None

    def close(self) -> None:
        with self._lock:
            if self._session is not None:
                self._session.close()
                self._session = None

    def pause(self, seconds: float) -> None:
        """Wait.

        Raises:
            ImageError: The run was cancelled.
        """
        if self._cancelled.is_set() or (seconds and self._cancelled.wait(seconds)):
            raise ImageError("cancelled")

    def ask(
        self,
        where: str,
        url: str,
        headers: Mapping[str, str],
        form: Mapping[str, str] | None = None,
    ) -> Response:
        """Return an answer, the last one where the answers are "not now"."""
        budget = _PATIENCE
        attempt = 0
        while True:
            attempt += 1
            answer = self._follow(where, url, headers, form)
            if answer.status_code not in _NOT_NOW or attempt == _TRIES or budget <= 0:
                return answer
            answer.close()
            wanted = _retry_after(answer.headers.get("Retry-After", ""))
            seconds = min(budget, _backoff(attempt) if wanted is None else wanted)
            budget -= seconds
            if seconds > 1:
                said = f"{_shown(answer.url)} answered {answer.status_code}"
                self.progress(f"{where}: {said}, waiting {seconds:.0f} s")
            self.pause(seconds)

    def chunks(self, answer: Response) -> Iterator[bytes]:
        """Yield a body as it comes.

        Raises:
            _BrokenError: The connection broke.
            ImageError: The run was cancelled.
        """
        import urllib3  # noqa: PLC0415  # with requests

        read = getattr(answer.raw, "read1", answer.raw.read)
        while True:
            self.pause(0)
            try:
                data = read(_CHUNK, decode_content=False)
            except urllib3.exceptions.ReadTimeoutError:
                raise _BrokenError(f"nothing came for {_READ:.0f} s") from None
            except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError):
                raise _BrokenError("the connection broke") from None
            if not data:
                return
            yield data

    def body(self, answer: Response, limit: int) -> bytes:
        """Return a body; of one that is too long, more than its limit."""
        data = bytearray()
        for chunk in self.chunks(answer):
            data += chunk
            if len(data) > limit:
                break
        return bytes(data)

    def refusal(self, where: str, registry: str, answer: Response, missing: str) -> ImageError:
        """Return what an answer that is none means.

        Args:
            where: The image.
            registry: Its registry.
            answer: The answer.
            missing: What 404 means.
        """
        login = _login_hint(registry)
        match answer.status_code:
            case 401:
                what = f"registry {registry} wants a login, or another one"
                hint = f"{login}, and again. A registry may say so of images it does not have."
            case 403:
                what = f"registry {registry} does not allow it"
                hint = f"Is the reference right? May the account of {login} pull it?"
            case 404:
                what, hint = missing, "Is the reference right?"
            case 429:
                what = f"registry {registry}: rate limit"
                hint = f"Log in ({login}), or wait: that is a limit."
            case status if status >= 500:  # noqa: PLR2004  # server errors
                what = f"registry {registry} failed with {status}"
                hint = "It may pass: try again later."
            case status:
                what, hint = f"registry {registry} answered {status}", "Is the reference right?"
        said = self._said(answer)
        return ImageError(f"{where}: {what}{f': {said}' if said else ''}", hint=hint)

    def _said(self, answer: Response) -> str:
        """Return a registry's own word for an error (distribution-spec, "Error Codes")."""
        try:
            values = json.loads(self.body(answer, _LONGEST_ANSWER))
            text = values["errors"][0]["message"]
        except (_BrokenError, ValueError, RecursionError, LookupError, TypeError):
            return ""
        text = text if isinstance(text, str) else ""
        for secret in sorted(filter(None, self.secrets.copy()), key=len, reverse=True):
            text = text.replace(secret, "***")
        return " ".join("".join(each if each.isprintable() else " " for each in text).split())[:200]

    def _follow(
        self, where: str, url: str, headers: Mapping[str, str], form: Mapping[str, str] | None
    ) -> Response:
        """Return the answer behind redirects; only the first host is told who asks."""
        first = _origin(url)
        foreign = {name: value for name, value in headers.items() if name != "Authorization"}
        for _ in range(_REDIRECTS + 1):
            self.pause(0)
            answer = self._send(where, url, headers if _origin(url) == first else foreign, form)
            if answer.status_code not in _MOVED or form is not None:
                return answer
            answer.close()
            target = _joined(url, answer.headers.get("Location", ""))
            if target is None or (_scheme(url) == "https" and _scheme(target) != "https"):
                raise ImageError(
                    f"{where}: {_shown(url)} leads where no one may follow: {_shown(target or '')}"
                )
            url = target
        raise ImageError(f"{where}: more than {_REDIRECTS} redirects")

    def _send(
        self, where: str, url: str, headers: Mapping[str, str], form: Mapping[str, str] | None
    ) -> Response:
        import urllib3  # noqa: PLC0415  # with requests

        verify = self._authorities(where, url)
        try:
            return self._opened().request(
                "GET" if form is None else "POST",
                url,
                headers={**headers, "Accept-Encoding": "identity"},
                data=form,
                timeout=(_CONNECT, _READ),
                allow_redirects=False,
                stream=True,
                verify=verify,
                proxies=self._proxies(url),
            )
        except (OSError, urllib3.exceptions.HTTPError, ValueError) as error:
            raise _explained(where, url, error) from None

    def _opened(self) -> Session:
        import requests  # noqa: PLC0415  # 0.1 s, and few runs pull
        from requests.adapters import HTTPAdapter  # noqa: PLC0415

        class Plain(requests.Session):
            """A session that reads nothing of a redirect by itself."""

            def get_redirect_target(self, resp: Response) -> None:
                del resp

        with self._lock:
            if self._session is None:
                session = Plain()
                session.trust_env = False
                session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=()))
                session.headers["User-Agent"] = "nox-variants"
                for scheme in ("https://", "http://"):
                    session.mount(scheme, HTTPAdapter(pool_maxsize=16))
                self._session = session
            return self._session

    def _authorities(self, where: str, url: str) -> str | bool:
        """Return the file that says whom to trust; True is the usual authorities."""
        host = urlsplit(url).netloc
        if _HOST.fullmatch(host) and os.access(_CERTIFICATES / host / "ca.crt", os.R_OK):
            return str(_CERTIFICATES / host / "ca.crt")
        for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
            if file := self._environ.get(name):
                if not os.access(file, os.R_OK):
                    raise ImageError(f"{where}: {name}: {file} cannot be read")
                return file
        return True

    def _proxies(self, url: str) -> dict[str, str]:
        origin = _origin(url)
        if origin is None or _direct(origin[1], self._setting("no_proxy")):
            return {}
        proxy = self._setting(f"{origin[0]}_proxy")
        return {origin[0]: proxy} if proxy else {}

    def _setting(self, name: str) -> str:
        return self._environ.get(name) or self._environ.get(name.upper()) or ""


def _explained(where: str, url: str, error: Exception) -> Exception:
    """Return what a failed request means; its own words may hold what is nobody's business."""
    import requests  # noqa: PLC0415  # it is there already
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError  # noqa: PLC0415

    host = urlsplit(url).netloc.rpartition("@")[2]
    reason = getattr(error.args[0], "reason", None) if error.args else None
    if isinstance(error, requests.ConnectTimeout | requests.exceptions.ProxyError) or isinstance(
        reason, ConnectTimeoutError | NewConnectionError
    ):
        return _UnreachableError(host)
    if isinstance(error, requests.exceptions.SSLError):
        return _tls_error(where, host, error)
    if isinstance(error, requests.ReadTimeout):
        return _BrokenError(f"nothing came for {_READ:.0f} s")
    if isinstance(error, requests.ConnectionError):
        return _BrokenError("the connection broke")
    return ImageError(f"{where}: {host} cannot be asked: {type(error).__name__}")


def _tls_error(where: str, host: str, error: BaseException) -> Exception:
    found: object = error
    while isinstance(found, Exception) and not isinstance(found, ssl.SSLError):
        found = getattr(found, "reason", None) or (found.args[0] if found.args else None)
    if isinstance(found, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return _BrokenError("the connection broke")
    if isinstance(found, ssl.SSLCertVerificationError):
        return ImageError(
            f"{where}: the certificate of {host} is not trusted: {found.verify_message}",
            hint="An authority of your own belongs into SSL_CERT_FILE or "
            f"{_CERTIFICATES}/{host}/ca.crt.",
        )
    reason = (isinstance(found, ssl.SSLError) and found.reason) or "no reason given"
    if reason in _NO_TLS:
        return ImageError(
            f"{where}: {host} does not speak TLS",
            hint="A registry without TLS is asked only where the image is marked insecure.",
        )
    return ImageError(f"{where}: TLS with {host}: {reason.replace('_', ' ').lower()}")


def challenges(header: str) -> tuple[tuple[str, Pairs], ...]:
    """Return what a ``WWW-Authenticate`` header offers (RFC 9110, section 11.6.1).

    Whatever does not fit is passed over: the header comes from outside.

    Args:
        header: Its value; several of them are joined by commas.
    """
    found: list[tuple[str, list[tuple[str, str]]]] = []
    for match in _CHALLENGE.finditer(header[:_LONGEST_HEADER]):
        quoted, plain = match["quoted"], match["plain"]
        if quoted is None and plain is None:
            found.append((match["name"].lower(), []))
        elif found:
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
            found[-1][1].append((match["name"].lower(), value))
    return tuple((scheme, tuple(values)) for scheme, values in found)


def _continues(header: str, start: int, size: int) -> bool:
    """Tell whether a ``Content-Range`` is the rest that was asked for (RFC 9110, section 14.4)."""
    match = _CONTENT_RANGE.fullmatch(header.strip())
    if not match:
        return False
    first, last = int(match[1]), int(match[2])
    return first == start <= last < size and match[3] in {"*", str(size)}


def _retry_after(header: str) -> float | None:
    """Return the seconds that a ``Retry-After`` asks for (RFC 9110, section 10.2.3)."""
    if re.fullmatch(r"[0-9]{1,10}", header.strip()):
        return float(header)
    try:
        then = parsedate_to_datetime(header)
        then = then if then.tzinfo else then.replace(tzinfo=UTC)
        return max(0.0, (then - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, LookupError, OverflowError):
        return None


def _backoff(attempt: int) -> float:
    return min(_FIRST_PAUSE * 2.0 ** (attempt - 1), _LONGEST_PAUSE)


def _authorized(header: str) -> dict[str, str]:
    return {"Authorization": header} if header else {}


def _login_hint(registry: str) -> str:
    return "docker login" if registry == HUB else f"docker login {registry}"


def _media_type(headers: Mapping[str, str]) -> str:
    return headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _origin(url: str) -> tuple[str, str, int] | None:
    """Return scheme, host and port of an address of HTTP; None for anything else."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return None
    return parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80)


def _scheme(url: str) -> str:
    return url.partition(":")[0].lower()


def _joined(url: str, location: str) -> str | None:
    """Return where a redirect leads; None for what is no address of HTTP."""
    try:
        target = urljoin(url, location)
    except ValueError:
        return None
    return target if location and _origin(target) else None


def _shown(url: str) -> str:
    """Return an address as a message may show it: without user, path and query."""
    origin = _origin(url)
    return f"{origin[0]}://{origin[1]}:{origin[2]}" if origin else "no address"


def _direct(host: str, exceptions: str) -> bool:
    """Tell whether a host is asked without a proxy, by the rules of Go's and so of docker."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    for each in filter(None, re.split(r"[,\s]+", exceptions.lower())):
        name = each.removeprefix("*").removeprefix(".")
        if each == "*" or host == name or host.endswith(f".{name}"):
            return True
        with contextlib.suppress(ValueError):
            if address is not None and address in ipaddress.ip_network(each, strict=False):
                return True
    return False
