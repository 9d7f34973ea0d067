"""What runs that have died left in a daemon: containers, images and volumes."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from nox_variants.engines.docker.connection import explained
from nox_variants.engines.docker.labels import FIXTURES, OWNER, ended

if TYPE_CHECKING:
    from docker.models.containers import Container

    from nox_variants.engines.docker.connection import Daemon


def remove_left_behind(daemon: Daemon) -> int:
    """Remove what runs on this machine that have died left; returns how many containers."""
    here, count = socket.gethostname(), 0
    ours: dict[str, str | list[str] | bool] = {"label": OWNER}
    with explained("looking for what was left"):
        found = daemon.client.containers.list(all=True, filters=ours, sparse=True)
        for container in sorted(found, key=lambda each: FIXTURES in _sparse_labels(each)):
            if ended(_sparse_labels(container).get(OWNER, ""), here):
                with suppress(Exception):
                    container.remove(force=True, v=True)
                    count += 1
        for image in daemon.client.images.list(filters=ours):
            if ended(image.labels[OWNER], here):
                with suppress(Exception):
                    image.remove(force=True)
        for volume in daemon.client.volumes.list(filters=ours):
            if ended(volume.attrs["Labels"][OWNER], here):
                with suppress(Exception):
                    volume.remove(force=True)
    return count


def _sparse_labels(container: Container) -> dict[str, str]:
    return container.attrs.get("Labels") or {}
