"""No network for containers, at less than the price of Docker's own way.

For its network `none`, Docker starts its own program twice per container, to set up what is not
there (libnetwork, ``set-ipv6`` and ``libnetwork-setkey``). One whose network is disabled gets the
same from the runtime: a network namespace with nothing but the loopback. Only the files that Docker
gives a network are missing; they are mounted out of a volume.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from nox_variants.engines.docker.connection import DaemonError, explained
from nox_variants.engines.docker.labels import OWNER, owner
from nox_variants.oci.layer import BLOCK, plain_file
from nox_variants.results import EngineName
from nox_variants.sandbox.program import HOSTS, NO_RESOLVER

if TYPE_CHECKING:
    from docker.models.containers import Container
    from docker.models.volumes import Volume

    from nox_variants.engines.docker.connection import Daemon

_FILES = (("hosts", HOSTS), ("resolv.conf", NO_RESOLVER))
_NONE = {"network_mode": "none"}
_PLACE = "/mnt"


class Offline:
    """The network of smoke runs: none.

    Args:
        daemon: The daemon.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._lock = threading.Lock()
        self._options: dict[str, Any] | None = None
        self._made: list[Container | Volume] = []

    def options(self, image: str) -> dict[str, Any]:
        """Return what a container is made with.

        Where a daemon does not mount what its volumes hold, that is its own way.

        Args:
            image: The id of any image that the daemon has.
        """
        with self._lock:
            if self._options is None:
                self._options = _NONE
                if self._daemon.info.name is EngineName.DOCKER:
                    with suppress(DaemonError), explained("making a volume"):
                        self._options = self._disabled(image)
            return self._options

    def _disabled(self, image: str) -> dict[str, Any]:
        from docker.types import Mount  # noqa: PLC0415  # with the SDK

        client, labels = self._daemon.client, {OWNER: owner()}
        volume = client.volumes.create(labels=labels)
        self._made.append(volume)
        # It is there as long as the volume is needed: `docker volume prune` leaves that alone.
        holder = client.containers.create(
            image, ["-"], labels=labels, mounts=[Mount(_PLACE, volume.name, type="volume")]
        )
        self._made.append(holder)
        holder.put_archive(_PLACE, _archive())
        folder = volume.attrs["Mountpoint"]
        mounts = [
            Mount(f"/etc/{name}", f"{folder}/{name}", type="bind", read_only=True)
            for name, _ in _FILES
        ]
        options: dict[str, Any] = {"network_disabled": True, "mounts": mounts}
        trial = client.containers.create(image, ["-"], labels=labels, **options)
        self._made.append(trial)
        return options

    def close(self) -> None:
        """Remove what was made; what is left for any reason is removed by a later run."""
        for each in reversed(self._made):
            with suppress(Exception):
                each.remove(force=True)


def _archive() -> bytes:
    files = (plain_file(name, text.encode()) for name, text in _FILES)
    return b"".join((*files, bytes(2 * BLOCK)))
