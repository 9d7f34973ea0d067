"""Which engine runs: the one that is asked for, else Docker or Podman when one answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nox_variants.errors import EngineUnavailable, UsageError
from nox_variants.results import EngineName

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nox_variants.engines.docker.connection import Daemon

AUTO = "auto"

NAMES = (
    AUTO,
    *(name.value for name in (EngineName.DOCKER, EngineName.PODMAN, EngineName.EMBEDDED)),
)
"""What `--engine` takes."""


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine and why it was chosen; without a daemon it is the embedded one."""

    daemon: Daemon | None
    why: str


def choose(name: str, environ: Mapping[str, str], *, builder: str = "") -> Choice:
    """Return the engine to use.

    Args:
        name: ``auto``, or an engine's name.
        environ: The environment.
        builder: The builder that was asked for, which is the docker engine's; empty for none.

    Raises:
        UsageError: The engine that was asked for has no builders.
        EngineUnavailable: The engine that was asked for does not answer.
    """
    if builder and name not in {AUTO, EngineName.DOCKER}:
        raise UsageError(
            f"--builder {builder}: the engine {name} does not build with buildx",
            hint=f"Leave it out, or take --engine {EngineName.DOCKER}.",
        )
    if name == EngineName.EMBEDDED:
        return Choice(None, "as asked for")
    from nox_variants.engines.docker import connection  # noqa: PLC0415  # what a daemon needs

    if name != AUTO or builder:
        daemon = connection.connect(EngineName.DOCKER if builder else name, environ)
        asked = "as asked for" if name != AUTO else "as --builder asks"
        return Choice(daemon, f"{asked}, at {daemon.why}")
    reasons = []
    for each in (EngineName.DOCKER, EngineName.PODMAN):
        try:
            daemon = connection.connect(each, environ, thorough=False)
        except EngineUnavailable as error:
            reasons.append(error.message)
            continue
        return Choice(daemon, f"it answers at {daemon.why}")
    # A daemon that somebody named and that does not answer is worth a word; none at all is not.
    named = "DOCKER_HOST" in environ or "CONTAINER_HOST" in environ
    return Choice(None, "; ".join(reasons) if named else "neither Docker nor Podman answers")
