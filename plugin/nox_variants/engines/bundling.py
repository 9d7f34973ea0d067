"""The loader and the libraries that a dynamic program needs, found in the image that built it.

What `ldd` lists is not all: glibc opens the NSS modules that nsswitch.conf(5) names when a program
first looks up a host or a user, and no header of the program says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nox_variants import rootfs
from nox_variants.model import CopiedFile
from nox_variants.oci.digest import sha256_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from nox_variants.model import Digest, Pairs
    from nox_variants.plan import Plan
    from nox_variants.results import Startup

NSSWITCH = "/etc/nsswitch.conf"

_DEFAULT_SERVICES = ("dns", "files")
"""What glibc asks where there is no nsswitch.conf (its manual, "NSS Basics")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundled:
    """A file that comes along.

    Attributes:
        path: Where the program, or its loader, looks for it.
        source: Where it is in the build image, links followed.
        file: Where its bytes are on this machine.
        digest: Of its bytes.
        size: In bytes.
    """

    path: str
    source: str
    file: Path
    digest: Digest
    size: int


def libraries(lower: tuple[Path, ...], programs: Iterable[str], env: Pairs) -> tuple[Bundled, ...]:
    """Return what programs need beside themselves, by path.

    Args:
        lower: The folders of the build image's root, base first, the programs included.
        programs: The programs' paths there.
        env: Environment of the image that ships.
    """
    from nox_variants import startup  # noqa: PLC0415  # few variants have a bundle

    root = rootfs.Root(lower)
    found = [startup.read(lower, (program,), env) for program in programs]
    paths = [path for each in found for path in _paths(root, each) if root.find(path)]
    return tuple(_bundled(lower, path) for path in sorted(set(paths)))


def with_libraries(plan: Plan, bundle: Iterable[Bundled]) -> Plan:
    """Return a plan that copies a bundle, too."""
    copied = tuple(CopiedFile(source=each.source, target=each.path) for each in bundle)
    return replace(plan, run=replace(plan.run, files=(*plan.run.files, *copied)))


def _paths(root: rootfs.Root, found: Startup) -> Iterator[str]:
    from nox_variants import startup  # noqa: PLC0415  # as above

    if found.loader is None:
        return
    yield found.loader.path
    opened = [each.path for each in found.libraries if each.path]
    yield from opened
    if startup.uses_nss(found):
        yield NSSWITCH
        services = rootfs.services(root) or _DEFAULT_SERVICES
        folders = dict.fromkeys(path.rpartition("/")[0] for path in opened)
        yield from (f"{each}/libnss_{name}.so.2" for each in folders for name in services)


def _bundled(lower: tuple[Path, ...], path: str) -> Bundled:
    file = rootfs.resolve(lower, path)
    if file is None:  # it was found a moment ago
        raise FileNotFoundError(path)
    layer = next(each for each in lower if file.is_relative_to(each))
    return Bundled(
        path=path,
        source=f"/{file.relative_to(layer)}",
        file=file,
        digest=sha256_file(file),
        size=file.stat().st_size,
    )
