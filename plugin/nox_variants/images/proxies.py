"""Proxies, as the environment has them: which of them is asked for an address, if any."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def of(origin: tuple[str, str, int] | None, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the proxy of an address, by its scheme; nothing where it is asked directly.

    Args:
        origin: Scheme, host and port of the address.
        environ: The environment.
    """
    if origin is None or is_direct(origin[1], _setting("no_proxy", environ)):
        return {}
    proxy = _setting(f"{origin[0]}_proxy", environ)
    return {origin[0]: proxy} if proxy else {}


def _setting(name: str, environ: Mapping[str, str]) -> str:
    return environ.get(name) or environ.get(name.upper()) or ""


def is_direct(host: str, exceptions: str) -> bool:
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
