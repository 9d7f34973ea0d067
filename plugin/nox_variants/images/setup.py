"""`setup:` commands on top of an image, in the sandbox."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

from nox_variants import rootfs
from nox_variants.errors import ImageError
from nox_variants.sandbox.bubblewrap import MAP_ALL, can_map
from nox_variants.sandbox.command import run_command

if TYPE_CHECKING:
    import threading
    from pathlib import Path

    from nox_variants.model import Pairs
    from nox_variants.sandbox.command import Root

_CHOWN = re.compile(
    r"(chown|chgrp|lchown|fchown|setgroups|setegid|seteuid|setresuid)"
    r".*(Operation not permitted|Invalid argument)",
    re.IGNORECASE,
)
_LOG_KEPT = 16 * 1024
_MOUNT_POINTS = ("etc/hosts", "etc/resolv.conf")
"""Files that the sandbox makes to mount this machine's own on: no part of the image."""


def set_up(
    name: str, commands: tuple[str, ...], root: Root, *, env: Pairs, cancelled: threading.Event
) -> None:
    """Run commands in a root, one after the other.

    Args:
        name: The image's name.
        commands: Shell commands.
        root: Where they run; changes go to its `upper`.
        env: The image's environment.
        cancelled: Ends them.

    Raises:
        ImageError: A command failed, or there is no shell.
    """
    if not commands:
        return
    _shell(name, root.stack)
    mount_points = [
        root.upper / point
        for point in _MOUNT_POINTS
        if not any(os.path.lexists(layer / point) for layer in root.stack)
    ]
    mapped = can_map()
    try:
        for command in commands:
            _run(name, command, root, env, cancelled, mapped=mapped)
    finally:
        if mapped:
            _take_back(name, root.upper)
    for file in mount_points:
        if file.is_file() and not file.is_symlink() and not file.stat().st_size:
            file.unlink()
    root.upper.chmod(0o755)


def _take_back(name: str, folder: Path) -> None:
    """Give the files of other uids to this user, who could neither read nor remove them."""
    command = [*MAP_ALL, "chown", "--no-dereference", "--recursive", "0:0", os.fspath(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ImageError(f"image {name}: what its setup made cannot be read: {done.stderr.strip()}")


def _run(
    name: str,
    command: str,
    root: Root,
    env: Pairs,
    cancelled: threading.Event,
    *,
    mapped: bool,
) -> None:
    output = bytearray()

    def keep(data: bytes) -> None:
        output.extend(data)
        del output[:-_LOG_KEPT]

    code = run_command(
        root,
        (*_shell(name, root.stack), "-c", command),
        workdir="/",
        env=env,
        network=True,
        log=keep,
        cancelled=cancelled,
        mapped=mapped,
    )
    if not code:
        return
    text = output.decode(errors="replace").strip()
    said = f": {text.splitlines()[-1]}" if text else ""
    hint = "The command runs with /bin/sh in the image's own root, as uid 0."
    if _CHOWN.search(text) and not mapped:
        hint = (
            "Only one uid is mapped here: no file can be given to another, no process can become"
            " another. Install uidmap, and give this user more:"
            " sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 NAME"
        )
    raise ImageError(
        f"image {name}: setup {command!r} ended with exit code {code}{said}", hint=hint
    )


def _shell(name: str, stack: tuple[Path, ...]) -> tuple[str, ...]:
    """Return what runs `setup`: busybox brings a shell before its links are made."""
    for argv in (("/bin/sh",), ("/bin/busybox", "sh")):
        if rootfs.resolve(stack, argv[0]) is not None:
            return argv
    raise ImageError(
        f"image {name}: has no /bin/sh to run its setup", hint="Add dash to its packages."
    )
