"""Children that make images: run to their end, ended when the run is cancelled."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from typing import IO, TYPE_CHECKING

from nox_variants.errors import ImageError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence
    from pathlib import Path

_POLL = 0.1


def environment() -> dict[str, str]:
    """Return this process's environment, with English messages and nothing that asks."""
    return {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}


def run(
    command: Sequence[str | Path],
    *,
    cancelled: threading.Event,
    stdin: IO[bytes] | None = None,
    watch: Callable[[], None] | None = None,
) -> tuple[int, str]:
    """Run a command to its end.

    Args:
        command: The command.
        cancelled: Ends it and everything that it started.
        stdin: What it reads; nothing by default.
        watch: Called now and then while it runs.

    Returns:
        Its exit code and its output, standard error included.

    Raises:
        ImageError: The run was cancelled.
    """
    _check(cancelled)
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            stdin=stdin or subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment(),
            umask=0o022,
        )
        try:
            while not _ended(process):
                _check(cancelled)
                if watch is not None:
                    watch()
        except BaseException:
            _end_group(process)
            raise
        output.seek(0)
        return process.returncode, output.read().decode(errors="replace")


def _check(cancelled: threading.Event) -> None:
    if cancelled.is_set():
        raise ImageError("cancelled")


def _ended(process: subprocess.Popen[bytes]) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_POLL)
        return True
    return False


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
