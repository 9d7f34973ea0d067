"""What may pass by itself when a registry is asked: the one list of what is tried again.

Whatever is not on it is an error at once.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from nox_variants.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Mapping

STATUSES: Mapping[int, str] = {
    408: "the server gave up waiting for the question: the connection was slow",
    429: "too many questions; Retry-After says when the next may come",
    500: "what a registry says whose storage has a bad moment; a broken one is found out soon",
    502: "a proxy before the registry had no answer, as while that is restarted",
    503: "overloaded or being restarted; Retry-After says for how long",
    504: "a proxy before the registry waited too long for its answer",
}
"""Answers (RFC 9110, section 15; RFC 6585, section 4) that another attempt may better, and why.

Besides them, a question is asked again whose connection breaks: it changes nothing. No other answer
is worth another question: 4xx are about what was asked for, 501 and 505 about what never will be.
"""

STATUSES_OF_WHAT_IS_SENT = frozenset(STATUSES) - {408, 500}
"""The same after something was sent: whether those two took a part of it, nobody knows."""


def answered(status: int | str) -> str:
    """Return what is said of a registry's answer."""
    return f"its registry answered {status}"


LIMIT = answered(429)
"""What is said of a registry that has been asked too much."""

_STATUS = rf"(?P<status>{'|'.join(map(str, STATUSES))})\b"
_SIGNS = tuple(
    (re.compile(sign, re.IGNORECASE), reason)
    for sign, reason in (
        (r"\btoomanyrequests:(?: |$)|too many requests", LIMIT),
        (rf"\bstatus(?: ?code)?(?: from registry)?:? {_STATUS}", answered("{status}")),
        (
            rf"unexpected status from \S+ request to \S+: {_STATUS}",
            answered("{status}"),
        ),
        (rf"parsing HTTP {_STATUS} response", answered("{status}")),
        (r"connection reset by peer|broken pipe", "the connection was reset"),
        (r"(?:unexpected |: )(?-i:EOF)\b", "the connection ended early"),
        (r"TLS handshake timeout", "the handshake took too long"),
        (r"\bread (?:tcp|udp)\d? \S+->\S+: i/o timeout", "nothing came for too long"),
    )
)
"""The same in the words of Docker's and Podman's daemons."""

_NOT_CONNECTED = re.compile(
    r"\bdial (?:tcp|udp)|\blookup |no such host|connection refused|network is unreachable"
    r"|no route to host|server misbehaving|temporary failure",
    re.IGNORECASE,
)
"""No connection came about, whatever else is said."""

_NO_ANSWER = re.compile(
    r"i/o timeout|request canceled|deadline exceeded|pinging container registry", re.IGNORECASE
)
"""Nor did one, as far as is known, where nothing else is said."""


LATER = "It may pass: try again later."
"""What to do where tries were not enough."""

LOOK = "Is the reference right?"
"""What to do where a registry does not have what was asked for."""


class TransientError(ImageError):
    """A registry failed in a way that may pass, but did not while it was tried again."""


def sign(said: str) -> str:
    """Return what may pass of a daemon's words about a registry; empty where nothing may.

    Args:
        said: The words.
    """
    if _NOT_CONNECTED.search(said):
        return ""
    for pattern, reason in _SIGNS:
        if match := pattern.search(said):
            return reason.format(**match.groupdict())
    return ""


def is_out_of_reach(said: str) -> bool:
    """Tell whether a registry cannot be reached at all, in a daemon's words."""
    return bool(_NOT_CONNECTED.search(said) or (not sign(said) and _NO_ANSWER.search(said)))


def retry_after(header: str) -> float | None:
    """Return the seconds that a ``Retry-After`` asks for (RFC 9110, section 10.2.3)."""
    if re.fullmatch(r"[0-9]{1,10}", header.strip()):
        return float(header)
    try:
        then = parsedate_to_datetime(header)
        then = then if then.tzinfo else then.replace(tzinfo=UTC)
        return max(0.0, (then - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, LookupError, OverflowError):
        return None


def tried(times: int) -> str:
    """Return how often something was tried, in words."""
    return f"tried {times} times" if times > 1 else "tried once"


def duration(seconds: float) -> str:
    """Return a wait in words."""
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"  # noqa: PLR2004  # digits
