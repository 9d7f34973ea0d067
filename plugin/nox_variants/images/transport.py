"""HTTP to registries: redirects by hand, waits, and what a failure means.

Credentials stay with the host that they are for. No error and no note carries a token, a password
or the query of an address. It knows nothing of images.
"""

from __future__ import annotations

import contextlib
import http.client
import http.cookiejar
import ipaddress
import json
import os
import re
import ssl
import threading
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from nox_variants.errors import ImageError
from nox_variants.images.reference import HUB, is_host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from requests import Response, Session

_CERTIFICATES = Path("/etc/docker/certs.d")
"""Where docker keeps a registry's own authority (docker's "Verify repository client")."""

_CONNECT = 10.0
"""Seconds until a host counts as out of reach."""

_READ = 30.0
"""Seconds without a byte after which a connection counts as broken."""

_TRIES = 4
"""Requests in a row that are answered "not now"."""

_PATIENCE = 60.0
"""Seconds that one request waits in all because a registry says so."""

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0
_REDIRECTS = 5
_CHUNK = 1 << 20
LONGEST_ANSWER = 1 << 20
"""Bytes of a token's or an error's document."""

_MOVED = frozenset({301, 302, 303, 307, 308})
_NOT_NOW = frozenset({429, 502, 503, 504})
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"})
"""What OpenSSL says of an answer in plain text, by its version."""


class BrokenError(Exception):
    """A connection broke: another attempt may do."""


class UnreachableError(Exception):
    """A host cannot be reached; the text is its name."""


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
            seconds = min(budget, backoff(attempt) if wanted is None else wanted)
            budget -= seconds
            if seconds > 1:
                said = f"{shown(answer.url)} answered {answer.status_code}"
                self.progress(f"{where}: {said}, waiting {seconds:.0f} s")
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

    def refusal(self, where: str, registry: str, answer: Response, missing: str) -> ImageError:
        """Return what an answer that is none means.

        Args:
            where: The image.
            registry: Its registry.
            answer: The answer.
            missing: What 404 means.
        """
        login = login_hint(registry)
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
            values = json.loads(self.body(answer, LONGEST_ANSWER))
            text = values["errors"][0]["message"]
        except (BrokenError, ValueError, RecursionError, LookupError, TypeError):
            return ""
        text = text if isinstance(text, str) else ""
        for secret in sorted(filter(None, self.secrets.copy()), key=len, reverse=True):
            text = text.replace(secret, "***")
        return " ".join("".join(each if each.isprintable() else " " for each in text).split())[:200]

    def _follow(
        self, where: str, url: str, headers: Mapping[str, str], form: Mapping[str, str] | None
    ) -> Response:
        """Return the answer behind redirects; only the first host is told who asks."""
        first = origin_of(url)
        foreign = {name: value for name, value in headers.items() if name != "Authorization"}
        for _ in range(_REDIRECTS + 1):
            self.pause(0)
            answer = self._send(where, url, headers if origin_of(url) == first else foreign, form)
            if answer.status_code not in _MOVED or form is not None:
                return answer
            answer.close()
            target = _joined(url, answer.headers.get("Location", ""))
            if target is None or (_scheme(url) == "https" and _scheme(target) != "https"):
                raise ImageError(
                    f"{where}: {shown(url)} leads where no one may follow: {shown(target or '')}"
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
        if is_host(host) and os.access(_CERTIFICATES / host / "ca.crt", os.R_OK):
            return str(_CERTIFICATES / host / "ca.crt")
        for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
            if file := self._environ.get(name):
                if not os.access(file, os.R_OK):
                    raise ImageError(f"{where}: {name}: {file} cannot be read")
                return file
        return True

    def _proxies(self, url: str) -> dict[str, str]:
        origin = origin_of(url)
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
        return UnreachableError(host)
    if isinstance(error, requests.exceptions.SSLError):
        return _tls_error(where, host, error)
    if isinstance(error, requests.ReadTimeout):
        return BrokenError(f"nothing came for {_READ:.0f} s")
    if isinstance(error, requests.ConnectionError):
        return BrokenError("the connection broke")
    return ImageError(f"{where}: {host} cannot be asked: {type(error).__name__}")


def _tls_error(where: str, host: str, error: BaseException) -> Exception:
    found: object = error
    while isinstance(found, Exception) and not isinstance(found, ssl.SSLError):
        found = getattr(found, "reason", None) or (found.args[0] if found.args else None)
    if isinstance(found, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return BrokenError("the connection broke")
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


def _joined(url: str, location: str) -> str | None:
    """Return where a redirect leads; None for what is no address of HTTP."""
    try:
        target = urljoin(url, location)
    except ValueError:
        return None
    return target if location and origin_of(target) else None


def shown(url: str) -> str:
    """Return an address as a message may show it: without user, path and query."""
    origin = origin_of(url)
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
