"""What a program does not find in its image: certificates, time zones, users, names, Java. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from nox_variants.model import Cause, Need
from nox_variants.results import Linkage
from nox_variants.subject import SEARCHED, fails, plain, program_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nox_variants.results import FileFacts, Finding, Observation
    from nox_variants.subject import Subject

_FEATURE = 44
"""A Java release takes class files up to its number and this one (JVMS, 4.1)."""

_BUILT_IN = (2, 34)
"""The glibc whose libc has the NSS services files and dns in itself (its NEWS)."""

_WORDS = {
    Cause.MISSING_CERTIFICATES: re.compile(
        r"signed by unknown authority|unable to get (?:local )?issuer certificate"
        r"|certificate verify failed|valid certification path|UnknownIssuer|no CA certificates",
        re.IGNORECASE,
    ),
    Cause.MISSING_TIMEZONE_DATA: re.compile(
        r"unknown time ?zone|No time zone found|ZoneInfoNotFound|invalid time ?zone", re.IGNORECASE
    ),
    Cause.MISSING_USER: re.compile(
        r"unknown user|no passwd entry|uid not found|cannot find name for user", re.IGNORECASE
    ),
}
"""What programs say where their image lacks something; each counts only where it really does."""


def class_version(subject: Subject) -> Finding | None:
    """Return the finding for a class that is newer than the Java runtime of its image."""
    needs, has = subject.artifact.class_version, subject.root.java
    if not has or needs <= has:
        return None
    return fails(
        Cause.CLASS_VERSION,
        f"is compiled for Java {needs - _FEATURE}, and {subject.run_image} has Java"
        f" {has - _FEATURE}: compile it with --release {has - _FEATURE}, or run it in a newer"
        " image",
    )


def unmet(subject: Subject, seen: Observation | None = None) -> Finding | None:
    """Return which need the image does not meet: a declared one, or one that the program names.

    That certificates are what it missed, the run's own server has to have seen.
    """
    needs = set(subject.smoke.needs)
    if seen and not seen.distrusted:
        needs.discard(Need.CERTIFICATES)
    words = seen.stderr[:SEARCHED] + seen.stdout[:SEARCHED] if seen else ""
    named = {cause for cause, pattern in _WORDS.items() if pattern.search(words)}
    for need, finding in _lacks(subject):
        if need in needs or finding.cause in named:
            return finding
    return None


def _lacks(subject: Subject) -> Iterator[tuple[Need, Finding]]:
    root, image = subject.root, subject.image
    if not root.certificates:
        yield (
            Need.CERTIFICATES,
            fails(
                Cause.MISSING_CERTIFICATES,
                f"verifies certificates, and {image} has no CA certificates: install"
                " ca-certificates, or copy /etc/ssl/certs/ca-certificates.crt",
            ),
        )
    if not root.timezones:
        yield (
            Need.TIME_ZONES,
            fails(
                Cause.MISSING_TIMEZONE_DATA,
                f"needs time zones, and {image} has no /usr/share/zoneinfo: install tzdata, or"
                " build them into the program",
            ),
        )
    if problem := _users_unknown(subject):
        yield Need.USERS, fails(Cause.MISSING_USER, problem)
    if problem := _names_unresolved(subject):
        yield Need.NAMES, fails(Cause.NAME_RESOLUTION, problem)


def _users_unknown(subject: Subject) -> str:
    """Return why users cannot be looked up; glibc before 2.34 reads /etc/passwd with a module."""
    root, program = subject.root, program_of(subject)
    if not root.users:
        return (
            f"looks up users, and {subject.image} has no /etc/passwd: copy one with the users that"
            " it needs"
        )
    dynamic = program is not None and program.linkage is Linkage.GLIBC_DYNAMIC
    if not dynamic or "files" in root.nss or not _older(root.libc, _BUILT_IN):
        return ""
    return (
        f"looks up users with {plain(root.libc)}, and {subject.run_image} has no"
        " libnss_files.so.2: copy it (libs: bundle), or link it with musl"
    )


def _names_unresolved(subject: Subject) -> str:
    """Return why glibc's resolver cannot ask DNS; empty where nothing speaks against it.

    Without a file nsswitch.conf(5), glibc tries dns and files. Both are part of libc since 2.34;
    before, and for any other service, a module has to be there (static programs included).
    """
    root, program = subject.root, program_of(subject)
    if program is None or not _uses_glibc(program):
        return ""
    if root.hosts and "dns" not in root.hosts:
        return (
            f"resolves names with glibc, and nsswitch.conf of {subject.run_image} names no dns for"
            f" hosts (it has {plain(' '.join(root.hosts))}): add dns, or link it with musl"
        )
    dynamic = program.linkage is Linkage.GLIBC_DYNAMIC  # a static one brings its own
    if not dynamic or "dns" in root.nss or not _older(root.libc, _BUILT_IN):
        return ""
    return (
        f"resolves names with {plain(root.libc)}, and {subject.run_image} has no"
        " libnss_dns.so.2: copy it (libs: bundle), or link it with musl"
    )


def _uses_glibc(facts: FileFacts) -> bool:
    return facts.linkage is Linkage.GLIBC_DYNAMIC or facts.abi_tag


def _older(libc: str, version: tuple[int, ...]) -> bool:
    """Tell whether a root has a glibc that is older than a version."""
    name, _, number = libc.partition(" ")
    parts = tuple(map(int, re.findall(r"\d+", number)))
    return name == "glibc" and bool(parts) and parts < version
