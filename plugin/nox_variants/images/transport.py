"""HTTP to registries: redirects by hand, waits, and what a failure means.

Credentials stay with the host that they are for. No error and no note carries a token, a password
or the query of an address. It knows nothing of images.
"""

from __future__ import annotations

import http.client
import http.cookiejar
import os
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from nox_variants import jsontext
from nox_variants.errors import ImageError
from nox_variants.images import proxies
from nox_variants.images.reference import HUB, is_host
from nox_variants.images.transient import (
    LATER,
    LOOK,
    STATUSES,
    STATUSES_OF_WHAT_IS_SENT,
    TransientError,
    duration,
    retry_after,
    tried,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from requests import Response, Session

_CERTIFICATES = Path("/etc/docker/certs.d")
"""Where docker keeps a registry's own authority (docker's "Verify repository client")."""

_CONNECT = 10.0
"""Seconds until a host counts as out of reach."""

_READ = 30.0
"""Seconds without a byte after which a connection counts as broken."""

_COMMIT = 300.0
"""The same after a body was sent: what is large is checked, and copied, before the answer comes."""

TRIES = 4
"""Requests in a row that are answered "not now"."""

PATIENCE = 60.0
"""Seconds that one request waits in all; a registry that wants longer is not waited for."""

_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 5.0
_REDIRECTS = 5
_CHUNK = 1 << 20
LONGEST_ANSWER = 1 << 20
"""Bytes of a token's or an error's document."""

PULL, PUSH = "pull it", "push to it"
"""What is asked for, as in "may somebody pull it?"."""

_MOVED = frozenset({301, 302, 303, 307, 308})
_MOVED_AS_IT_IS = frozenset({307, 308})
"""Redirects after which the same is sent to another place (RFC 9110, section 15.4)."""

_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"})
"""What OpenSSL says of an answer in plain text, by its version."""


class BrokenError(Exception):
    """A connection broke: another attempt may do."""


class UnreachableError(Exception):
    """A host cannot be reached; the text is its name."""


class NoTlsError(ImageError):
    """A host answers in plain text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A request that is no plain question.

    Attributes:
        method: ``HEAD``, ``POST``, ``PUT``.
        size: Bytes of its body.
        pieces: Gives the body, from its beginning with each attempt.
    """

    method: str
    size: int = 0
    pieces: Callable[[], Iterable[bytes]] = tuple

    def __len__(self) -> int:
        """Return the bytes of the body: requests asks for them."""
        return self.size

    def __iter__(self) -> Iterator[bytes]:
        """Return the body."""
        return iter(self.pieces())


class Transport:
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
        """Close all connections."""
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
        sent: Sent | None = None,
    ) -> Response:
        """Return an answer, the last one where the answers are "not now".

        Those before it are its history.
        """
        budget = PATIENCE
        earlier: list[Response] = []
        while True:
            answer = self.once(where, url, headers, form or sent)
            answer.history = earlier[:]
            if answer.status_code not in _not_now(sent):
                return answer
            earlier.append(answer)
            wanted = retry_after(answer.headers.get("Retry-After", ""))
            seconds = backoff(len(earlier)) if wanted is None else wanted
            if len(earlier) == TRIES or seconds > budget:
                return answer
            answer.close()
            budget -= seconds
            self.wait(where, f"{shown(answer.url)} answered {answer.status_code}", seconds)

    def wait(self, where: str, why: str, seconds: float) -> None:
        """Wait before another attempt, and say so.

        Args:
            where: The image.
            why: What came of the attempt before.
            seconds: How long.

        Raises:
            ImageError: The run was cancelled.
        """
        if seconds:
            self.progress(f"{where}: {why}, waiting {duration(seconds)}")
        self.pause(seconds)

    def chunks(self, answer: Response) -> Iterator[bytes]:
        """Yield a body as it comes.

        Raises:
            BrokenError: The connection broke.
            ImageError: The run was cancelled.
        """
        import urllib3  # noqa: PLC0415  # with requests

        read = getattr(answer.raw, "read1", answer.raw.read)
        while True:
            self.pause(0)
            try:
                data = read(_CHUNK, decode_content=False)
            except urllib3.exceptions.ReadTimeoutError:
                raise BrokenError(f"nothing came for {_READ:.0f} s") from None
            except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError):
                raise BrokenError("the connection broke") from None
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

    def refusal(
        self,
        where: str,
        registry: str,
        answer: Response,
        missing: str,
        doing: str = PULL,
    ) -> ImageError:
        """Return what an answer that is none means.

        Args:
            where: The image.
            registry: Its registry.
            answer: The answer.
            missing: What 404 means.
            doing: What is asked for.
        """
        login = login_hint(registry)
        match answer.status_code:
            case 401:
                what = f"registry {registry} wants a login, or another one"
                whom = "an account that may not" if doing == PUSH else "images it does not have"
                hint = f"{login}, and again. A registry may say so of {whom}."
            case 403:
                what = f"registry {registry} does not allow it"
                hint = f"{LOOK} May the account of {login} {doing}?"
            case 404:
                what, hint = missing, LOOK
            case 429:
                what = f"registry {registry}: rate limit"
                hint = f"Log in ({login}), or wait: that is a limit."
            case status if status >= 500:  # noqa: PLR2004  # server errors
                what = f"registry {registry} failed with {status}"
                hint = LATER
            case status:
                what = f"registry {registry} answered {status}"
                hint = LATER if status in STATUSES else LOOK
        said = self.said(answer)
        kind = TransientError if answer.status_code in STATUSES else ImageError
        return kind(
            f"{where}: {what}{_patience(answer)}{f': {said}' if said else ''}",
            hint=hint,
        )

    def said(self, answer: Response) -> str:
        """Return a registry's own word for an error (distribution-spec, "Error Codes")."""
        try:
            values = jsontext.parsed(self.body(answer, LONGEST_ANSWER))
            text = values["errors"][0]["message"]
        except (BrokenError, ValueError, LookupError, TypeError):
            return ""
        text = text if isinstance(text, str) else ""
        for secret in sorted(filter(None, self.secrets.copy()), key=len, reverse=True):
            text = text.replace(secret, "***")
        return " ".join("".join(each if each.isprintable() else " " for each in text).split())[:200]

    def once(
        self,
        where: str,
        url: str,
        headers: Mapping[str, str],
        body: Mapping[str, str] | Sent | None,
    ) -> Response:
        """Return the first answer, behind redirects; only the first host is told who asks.

        Args:
            where: The image.
            url: The address.
            headers: What is said besides.
            body: What is sent.
        """
        first = origin_of(url)
        foreign = {name: value for name, value in headers.items() if name != "Authorization"}
        for _ in range(_REDIRECTS + 1):
            self.pause(0)
            answer = self._send(where, url, headers if origin_of(url) == first else foreign, body)
            if answer.status_code not in _followed(body):
                return answer
            answer.close()
            url = destination(where, url, answer.headers.get("Location", ""))
        raise ImageError(f"{where}: more than {_REDIRECTS} redirects")

    def _send(
        self,
        where: str,
        url: str,
        headers: Mapping[str, str],
        body: Mapping[str, str] | Sent | None,
    ) -> Response:
        import urllib3  # noqa: PLC0415  # with requests

        verify = self._authorities(where, url)
        try:
            return self._opened().request(
                _method(body),
                url,
                headers={**headers, "Accept-Encoding": "identity"},
                data=body or None,
                timeout=(_CONNECT, _COMMIT if isinstance(body, Sent) and body else _READ),
                allow_redirects=False,
                stream=True,
                verify=verify,
                proxies=proxies.of(origin_of(url), self._environ),
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
        if is_host(host) and os.access(_CERTIFICATES / host / "ca.crt", os.R_OK):
            return str(_CERTIFICATES / host / "ca.crt")
        for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
            if file := self._environ.get(name):
                if not os.access(file, os.R_OK):
                    raise ImageError(f"{where}: {name}: {file} cannot be read")
                return file
        return True


def _method(body: Mapping[str, str] | Sent | None) -> str:
    if isinstance(body, Sent):
        return body.method
    return "GET" if body is None else "POST"


def _not_now(sent: Sent | None) -> Collection[int]:
    """Return the answers after which the same is asked, or sent, again."""
    return STATUSES_OF_WHAT_IS_SENT if sent is not None and sent.method != "HEAD" else STATUSES


def _patience(answer: Response) -> str:
    """Return how often something was tried, and for how long a registry wants to be left alone."""
    if answer.status_code not in STATUSES:
        return ""
    tries = len(answer.history) + 1
    wanted = retry_after(answer.headers.get("Retry-After", "")) or 0.0
    words = [tried(tries)] if tries > 1 else []
    words += [f"asks to wait {duration(wanted)}"] if wanted else []
    return f" ({', '.join(words)})" if words else ""


def _followed(body: Mapping[str, str] | Sent | None) -> frozenset[int]:
    """Return the redirects that are followed: a form goes nowhere else."""
    if body is None or _method(body) == "HEAD":
        return _MOVED
    return _MOVED_AS_IT_IS if isinstance(body, Sent) else frozenset()


def _explained(where: str, url: str, error: Exception) -> Exception:
    """Return what a failed request means; its own words may hold what is nobody's business."""
    import requests  # noqa: PLC0415  # it is there already
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError  # noqa: PLC0415

    host = urlsplit(url).netloc.rpartition("@")[2]
    reason = getattr(error.args[0], "reason", None) if error.args else None
    if isinstance(error, requests.ConnectTimeout | requests.exceptions.ProxyError) or isinstance(
        reason, ConnectTimeoutError | NewConnectionError
    ):
        return UnreachableError(host)
    if isinstance(error, requests.exceptions.SSLError):
        return _tls_error(where, host, error)
    if isinstance(error, requests.ReadTimeout):
        return BrokenError(f"nothing came for {_READ:.0f} s")
    if isinstance(error, requests.ConnectionError):
        return BrokenError("the connection broke")
    return ImageError(f"{where}: {host} cannot be asked: {type(error).__name__}")


_MALFORMED = range(79, 95)
"""OpenSSL's codes of certificates that are not as RFC 5280 wants them (x509_vfy.h)."""


def _tls_error(where: str, host: str, error: BaseException) -> Exception:
    found: object = error
    while isinstance(found, Exception) and not isinstance(found, ssl.SSLError):
        found = getattr(found, "reason", None) or (found.args[0] if found.args else None)
    if isinstance(found, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return BrokenError("the connection broke")
    if isinstance(found, ssl.SSLCertVerificationError):
        own = (
            "An authority of your own belongs into REQUESTS_CA_BUNDLE, else SSL_CERT_FILE, or "
            f"{_CERTIFICATES}/{host}/ca.crt."
        )
        strict = "Python takes it only as RFC 5280 has it, since 3.13: it has to be made anew."
        return ImageError(
            f"{where}: the certificate of {host} is not trusted: {found.verify_message}",
            hint=strict if found.verify_code in _MALFORMED else own,
        )
    reason = (isinstance(found, ssl.SSLError) and found.reason) or "no reason given"
    if reason in _NO_TLS:
        return NoTlsError(
            f"{where}: {host} does not speak TLS",
            hint="A registry without TLS is asked only where the image is marked insecure, or the"
            " mirror: insecure: true.",
        )
    return ImageError(f"{where}: TLS with {host}: {reason.replace('_', ' ').lower()}")


def backoff(attempt: int) -> float:
    """Return the seconds before another attempt."""
    return min(_FIRST_PAUSE * 2.0 ** (attempt - 1), _LONGEST_PAUSE)


def authorized(header: str) -> dict[str, str]:
    """Return the headers of who asks."""
    return {"Authorization": header} if header else {}


def login_hint(registry: str) -> str:
    """Return the command that logs in."""
    return "docker login" if registry == HUB else f"docker login {registry}"


def origin_of(url: str) -> tuple[str, str, int] | None:
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


def destination(where: str, url: str, location: str) -> str:
    """Return where an answer leads.

    Args:
        where: The image, for the message.
        url: Where the answer came from.
        location: Its ``Location``.

    Raises:
        ImageError: Nobody may follow: it is no address of HTTP, or what was encrypted would not be.
    """
    target = _joined(url, location)
    if target is None or (_scheme(url) == "https" and _scheme(target) != "https"):
        raise ImageError(
            f"{where}: {shown(url)} leads where no one may follow: {shown(target or '')}"
        )
    return target


def _joined(url: str, location: str) -> str | None:
    """Return where a ``Location`` leads; None for what is no address of HTTP."""
    try:
        target = urljoin(url, location)
    except ValueError:
        return None
    return target if location and origin_of(target) else None


def shown(url: str) -> str:
    """Return an address as a message may show it: without user, path and query."""
    origin = origin_of(url)
    return f"{origin[0]}://{origin[1]}:{origin[2]}" if origin else "no address"
