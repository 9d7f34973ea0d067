"""Who asks a registry: challenges, docker's configuration, tokens (Docker's token scheme)."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from nox_variants import jsontext
from nox_variants.errors import ImageError
from nox_variants.images.reference import address
from nox_variants.images.transport import (
    LONGEST_ANSWER,
    PULL,
    PUSH,
    Sent,
    Transport,
    authorized,
    login_hint,
    origin_of,
    shown,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from requests import Response

    from nox_variants.model import Pairs

_LONGEST_HEADER = 8192
_TOKEN_LIFE = 60.0
"""Seconds that a token lives which does not say it (distribution, "Token Authentication")."""

_LONGEST_LIFE = 24 * 3600.0

_CHALLENGE = re.compile(
    r"(?P<name>[\w!#$%&'*+.^`|~-]++)"
    r'(?:\s*+=\s*+(?:"(?P<quoted>(?:[^"\\]|\\.)*+)"|(?P<plain>[^\s,"]++)))?',
    re.ASCII,
)
_TOKEN = re.compile(r"[\x21-\x7e]+")


class Login:
    """What a registry is told about who asks: nothing before it wants to know.

    Args:
        registry: The registry.
        insecure: Whether it, and who gives tokens for it, is asked over plain HTTP.
        environ: The environment: where docker's configuration is.
        transport: How all of them are asked.
        pushing: Whether tokens have to be good for pushing, too.
    """

    def __init__(
        self,
        registry: str,
        *,
        insecure: bool,
        environ: Mapping[str, str],
        transport: Transport,
        pushing: bool = False,
    ) -> None:
        self._pushing = pushing
        self._registry = registry
        self._origin = origin_of(address(registry, insecure=insecure))
        self._insecure = insecure
        self._environ = environ
        self._transport = transport
        self._lock = threading.Lock()
        self._known: dict[str, tuple[str, float]] = {}
        """Header and end of its life, by repository: each has a scope of its own."""
        self._found: _Credentials | None = None

    def ask(
        self,
        where: str,
        repository: str,
        url: str,
        headers: Mapping[str, str],
        sent: Sent | None = None,
    ) -> Response:
        """Return an answer, after a login where the registry wants one; no other host gets one.

        Args:
            where: The image, for messages.
            repository: The repository that is asked for.
            url: The address, which may be another host's.
            headers: What is said besides who asks.
            sent: What is sent, where it is no plain question.
        """
        own = origin_of(url) == self._origin
        header = self._current(repository) if own else ""
        answer = self._transport.ask(where, url, {**headers, **authorized(header)}, sent=sent)
        if answer.status_code != 401 or not own or origin_of(answer.url) != self._origin:  # noqa: PLR2004  # Unauthorized
            return answer
        with contextlib.ExitStack() as closed:
            closed.enter_context(contextlib.closing(answer))
            challenge = answer.headers.get("WWW-Authenticate", "")
            renewed = self._renewed(where, repository, header, challenge)
            if not renewed:
                closed.pop_all()  # it may say why
                return answer
        return self._transport.ask(where, url, {**headers, **authorized(renewed)}, sent=sent)

    def _current(self, repository: str) -> str:
        """Return the header that is still valid, or nothing."""
        header, end = self._known.get(repository, ("", 0.0))
        return header if time.monotonic() < end else ""

    def _renewed(self, where: str, repository: str, refused: str, challenge: str) -> str:
        """Return a header other than the refused one, or nothing where there is none."""
        with self._lock:
            header = self._current(repository)
            if not header or header == refused:
                header, life = self._answer(where, repository, challenge)
                self._transport.secrets.add(header.partition(" ")[2])
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
        origin = origin_of(realm)
        if origin is None or (origin[0] != "https" and not self._insecure):
            raise ImageError(
                f"{where}: registry {self._registry} wants tokens of {shown(realm)}, "
                "which is no https address"
            )
        scopes = self._scopes(repository, wanted.get("scope", "").split())
        service = wanted.get("service", "")
        login = self._credentials(where)
        if login.identity:
            form = {"grant_type": "refresh_token", "refresh_token": login.identity}
            form |= {"service": service, "scope": " ".join(scopes), "client_id": "nox-variants"}
            answer = self._transport.ask(where, realm, {}, form)
        else:
            query = urlencode([("service", service), *(("scope", each) for each in scopes)])
            url = f"{realm}{'&' if urlsplit(realm).query else '?'}{query}"
            answer = self._transport.ask(where, url, authorized(login.basic()))
        with contextlib.closing(answer):
            if answer.status_code != 200:  # noqa: PLR2004
                raise self._transport.refusal(
                    where,
                    self._registry,
                    answer,
                    "no tokens are given",
                    PUSH if self._pushing else PULL,
                )
            return self._read(where, self._transport.body(answer, LONGEST_ANSWER))

    def _scopes(self, repository: str, wanted: list[str]) -> list[str]:
        """Return what a token has to be good for.

        A registry names what the question needs that it refused, which may be less than pushing.
        """
        own = f"repository:{repository}:"
        if not self._pushing:
            return wanted or [f"{own}pull"]
        return [f"{own}pull,push", *(each for each in wanted if not each.startswith(own))]

    def _read(self, where: str, data: bytes) -> tuple[str, float]:
        try:
            values = jsontext.parsed(data)
        except ValueError:
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
            self._transport.secrets |= self._found.secrets()
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
        helper = config.get_credential_store(registry)
    except (
        *(OSError, ValueError, TypeError, AttributeError, RecursionError),
        DockerException,
    ) as error:
        what = error.strerror if isinstance(error, OSError) else type(error).__name__
        raise ImageError(
            f"{where}: {file}: cannot be read: {what}",
            hint=f"Mend it, or log in again: {login_hint(registry)}.",
        ) from None
    program = f"docker-credential-{helper}"
    if helper and shutil.which(program, path=environ.get("PATH")) is None:
        raise ImageError(
            f"{where}: {registry} wants a login, and {file} names {program}, which is not on PATH",
            hint=f"Install it, or take it out of {file} and run {login_hint(registry)}.",
        )
    try:
        found = auth.resolve_authconfig(config, registry, credstore_env=dict(environ)) or {}
    except (DockerException, ValueError, KeyError, TypeError, OSError):
        # Its words may hold what it was to keep: they are not repeated.
        raise ImageError(
            f"{where}: {registry} wants a login, and {program} failed",
            hint=f"Does {program} list work? Else {login_hint(registry)}.",
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
