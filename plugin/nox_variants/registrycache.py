"""A registry as a cache of builds: what buildx and Bake are told of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryCache:
    """A registry's repository that keeps layers of builds, between machines.

    Attributes:
        repository: ``registry.example.com/team/cache``, without a tag: each build has its own.
        mode: ``max`` keeps the layers of every stage, ``min`` those of what comes out.
        write: Whether builds put theirs there; else they only take.
    """

    repository: str
    mode: str = "max"
    write: bool = True

    def source(self, tag: str) -> str:
        """Return where a build finds layers, as ``--cache-from`` has it."""
        return f"type=registry,ref={self.repository}:{tag}"

    def target(self, tag: str) -> str:
        """Return where a build leaves layers, as ``--cache-to`` has it; it may fail to."""
        return f"{self.source(tag)},mode={self.mode},ignore-error=true"
