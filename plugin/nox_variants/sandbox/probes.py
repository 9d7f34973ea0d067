"""Probes of a smoke run: what is brought for a program, and what follows from what is seen.

The same for every engine: each has its own way to run :mod:`nox_variants.sandbox.fixtures` in the
network of the program.
"""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nox_variants import jsontext, rootfs
from nox_variants.errors import SandboxError
from nox_variants.model import Need
from nox_variants.results import ServiceSeen
from nox_variants.sandbox.fixtures import ADDRESS, HOST

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nox_variants.model import Smoke

READY = 30.0
"""Seconds that fixtures get to open their ports; it takes some hundredths of one."""

FINISH = 5.0
"""Seconds that they get to say the last."""

LARGEST_BUNDLE = 16 * 1024 * 1024
"""Bytes of CA certificates; those that everyone trusts are a quarter of a megabyte."""

RESOLV_CONF = f"nameserver {ADDRESS}\n"
HOSTS_LINE = f"{ADDRESS}\t{HOST}\n"

_KEPT = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixtures:
    """What is brought for one run.

    Attributes:
        certificate: PEM of the HTTPS server's key and certificate; empty for no server.
        authority: PEM of the CA that signed it.
        names: Whether there is a DNS server.
        service: How the program is asked: arguments of :meth:`fixtures.Fixtures.visit`.
    """

    certificate: str = ""
    authority: str = ""
    names: bool = False
    service: tuple[tuple[str, Any], ...] = ()

    def orders(self, namespaces: Sequence[int] = ()) -> bytes:
        """Return the line of standard input that asks for them.

        Args:
            namespaces: Descriptors of the namespaces that are entered first.
        """
        value = {
            "namespaces": list(namespaces),
            "certificate": self.certificate,
            "names": self.names,
            "service": dict(self.service) or None,
        }
        return json.dumps(value).encode() + b"\n"


def fixtures(smoke: Smoke) -> Fixtures | None:
    """Return what a smoke run needs; None when that is nothing."""
    certificate, authority = _certificates() if Need.CERTIFICATES in smoke.needs else ("", "")
    names = Need.NAMES in smoke.needs
    service: dict[str, Any] = {}
    if smoke.service:
        service = {"port": smoke.service.port, "path": smoke.service.path}
        service |= {"most": smoke.output, "seconds": smoke.timeout + READY}
    if not (certificate or names or service):
        return None
    return Fixtures(
        certificate=certificate, authority=authority, names=names, service=tuple(service.items())
    )


def _certificates() -> tuple[str, str]:
    """Return a key with its certificate, and the certificate of the CA that was made for it."""
    import trustme  # noqa: PLC0415  # 0.1 s that most runs do without

    authority = trustme.CA(organization_name="nox-variants smoke run")
    leaf = authority.issue_cert(HOST).private_key_and_cert_chain_pem
    return leaf.bytes().decode(), authority.cert_pem.bytes().decode()


def trusting(lower: tuple[Path, ...], path: str, made: Fixtures) -> tuple[tuple[str, bytes], ...]:
    """Return the bundle of CA certificates of a root with the run's own added.

    Args:
        lower: The folders of the root, base first.
        path: The bundle's path in it; empty for none.
        made: What is brought.

    Returns:
        Its path, with links followed, and what it says then; nothing where there is none, or where
        nothing of ours is to be trusted.

    Raises:
        SandboxError: It is larger than any that is trusted.
    """
    root = rootfs.Root(lower)
    found = root.find(path) if path and made.authority else None
    if found is None or not found.regular:
        return ()
    bundle = root.data(path, LARGEST_BUNDLE + 1)
    if len(bundle) > LARGEST_BUNDLE:
        raise SandboxError(f"{path}: the bundle of CA certificates is too large to be extended")
    text = bundle.rstrip(b"\n") + b"\n" + made.authority.encode()
    return ((found.real, text),)


def not_started(smoke: Smoke) -> ServiceSeen | None:
    """Return what is seen of the server that a program would be which did not even start."""
    return ServiceSeen(listened=False) if smoke.service else None


class Probe:
    """What the fixtures of a run have said, and what follows. Times are seconds from its start.

    Args:
        smoke: The smoke run.

    Attributes:
        ready: Whether their ports are open.
        distrusted: Whether a TLS client refused the server's certificate.
        answered: When the program answered; None as long as it has not.
        failed: Whether they have failed.
        words: What else they said last: why they did.
    """

    def __init__(self, smoke: Smoke) -> None:
        self._service = smoke.service
        self._timeout = smoke.timeout
        self.ready = self.distrusted = self.failed = False
        self.answered: float | None = None
        self.words = ""
        self._rest = b""
        self._listened = self._stopping = -1.0
        self._answer: dict[str, Any] = {}

    def hear(self, data: bytes, now: float) -> None:
        """Take in what they printed: the next piece of it.

        Args:
            data: The piece.
            now: When it came.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line.decode(errors="replace"), now)

    def _line(self, line: str, now: float) -> None:
        try:
            said = jsontext.parsed(line)
            event = said.pop("event")
        except (ValueError, LookupError, AttributeError, TypeError):
            event, said = "", {"error": line}
        if event == "ready":
            self.ready = True
        elif event == "listens":
            self._listened = now
        elif event == "answer":
            if not self._answer and said.get("status"):
                self.answered = now
            self._answer = self._answer or said
        elif event == "distrusted":
            self.distrusted = True
        else:
            self.failed |= event == "failed"
            self.words = str(said.get("error"))[:_KEPT]

    def due(self, now: float) -> signal.Signals | None:
        """Return the signal that the program gets now: each once, SIGKILL as the last.

        A server gets SIGTERM when it has answered, or has not in time, and SIGKILL when that does
        not end it, or when it does not even listen in time. Nothing is due to a program that is
        none.
        """
        if self._service is None:
            return None
        if self._stopping >= 0:
            return signal.SIGKILL if now > self._stopping + self._service.stop else None
        if not self._answer and now <= self._timeout:
            return None
        if self._listened < 0:
            return signal.SIGKILL
        self._answer = self._answer or {"error": f"no answer within {self._timeout:g} s"}
        self._stopping = now
        return signal.SIGTERM

    def seen(self, now: float, *, killed: bool) -> ServiceSeen | None:
        """Return what was seen of a server.

        Args:
            now: When it ended.
            killed: Whether it had to be killed.
        """
        if self._service is None:
            return None
        if self._listened < 0:
            return ServiceSeen(listened=False)
        return ServiceSeen(
            listened=True,
            seconds=self._listened,
            **self._answer or {"error": "it ended, or was ended, before it answered"},
            stopped=not killed,
            stop_seconds=now - self._stopping if self._stopping >= 0 else 0.0,
        )
