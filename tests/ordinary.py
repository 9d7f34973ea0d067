"""What an ordinary user may not do, for tests that run as root."""

from __future__ import annotations

import ctypes
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_VERSION_3 = 0x20080522
_MODE_BITS = 0b1110
"""CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH and CAP_FOWNER: what lets root pass by mode bits."""


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Let mode bits count for this thread, whoever runs it (capabilities(7))."""
    library = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)  # and this thread
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then the higher halves
    assert library.capget(header, sets) == 0
    kept = sets[0]
    sets[0] = kept & ~_MODE_BITS
    assert library.capset(header, sets) == 0
    try:
        yield
    finally:
        sets[0] = kept
        assert library.capset(header, sets) == 0
