"""How long a registry asks to wait, for daemons: what they say of its answer leaves that out."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from nox_variants.errors import ImageError
from nox_variants.images.leaving import until_cancelled
from nox_variants.images.reference import address, parse_reference
from nox_variants.images.transient import STATUSES, retry_after
from nox_variants.images.transport import BrokenError, Sent, Transport, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nox_variants.images.mirrors import Place


class Patience:
    """Asks registries once more, without a login, for their ``Retry-After``.

    Threads may share it.

    Args:
        environ: The environment, for proxies and authorities.
        cancelled: Ends it.
    """

    def __init__(self, environ: Mapping[str, str], cancelled: threading.Event) -> None:
        self._environ = environ
        self._cancelled = cancelled
        self._lock = threading.Lock()
        self._silent: set[str] = set()
        """Registries that do not answer this machine; the daemon may be on another."""

    def asked(self, place: Place) -> float | None:
        """Return the seconds that a registry asks to wait; None where it does not say.

        Args:
            place: Where the image was asked for.

        Raises:
            ImageError: The run was cancelled.
        """
        registry = parse_reference(place.reference).registry
        with self._lock:
            if registry in self._silent:
                return None
        try:
            return until_cancelled(self._cancelled, lambda: self._ask(place))
        except (BrokenError, UnreachableError):
            with self._lock:
                self._silent.add(registry)
        except ImageError:
            if self._cancelled.is_set():
                raise
        return None

    def _ask(self, place: Place) -> float | None:
        named = parse_reference(place.reference)
        base = address(named.registry, insecure=place.insecure)
        url = f"{base}/{named.repository}/manifests/{named.digest or named.tag}"
        transport = Transport(self._environ, lambda _: None, self._cancelled)
        with contextlib.closing(transport):
            answer = transport.once(place.reference, url, {}, Sent(method="HEAD"))
            with contextlib.closing(answer):
                if answer.status_code not in STATUSES:
                    return None
                return retry_after(answer.headers.get("Retry-After", ""))
