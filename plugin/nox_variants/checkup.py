"""What works on this machine and what does not: one check, one value, nothing changed.

No check stops another one: what goes wrong in it is what it says.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nox_variants.errors import EngineUnavailable, VariantsError
from nox_variants.reports.table import size
from nox_variants.results import EngineName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from nox_variants.engines.docker.connection import Daemon

REGISTRY = "https://registry-1.docker.io/v2/"
"""Docker Hub's API: it answers 401 to who has no token (distribution-spec, "Determining support").
"""

REGISTRY_SECONDS = 5.0
"""How long it may take to connect, and then to answer."""

LITTLE = 10**9
"""Bytes of free disk that are too few: a compiler's image and what is built with it."""

MOST_FILES = 300_000
"""How many files of the store are looked at: doctor is quick."""

APT_TOOLS = ("apt-get", "dpkg-deb", "tar")

_TOOL_SECONDS = 10


VERIFIED = "verified"
"""The name of the check that reads all of the store."""


class State(StrEnum):
    """What a check found."""

    USABLE = "usable"
    MISSING = "missing"
    TROUBLE = "trouble"

    @property
    def bad(self) -> bool:
        """Whether somebody should look into it."""
        return self is State.TROUBLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What a check found.

    Attributes:
        name: What was checked.
        state: Whether it can be used; what is merely not there is no trouble.
        words: What it is, or why not.
        hint: What to do about it; empty when there is nothing to say.
        notes: What else is worth knowing, as sentences.
    """

    name: str
    state: State
    words: str
    hint: str = ""
    notes: tuple[str, ...] = ()


Named = tuple[str, "Callable[[], Check | None]"]
"""A check that is still to be done; it returns None when there is nothing to check."""


def everything(
    environ: Mapping[str, str], *, home: Path, project: Path, offline: bool, verify: bool
) -> tuple[Named, ...]:
    """Return all checks, in the order in which they are shown.

    Args:
        environ: The environment.
        home: The folder of the store.
        project: The folder beside the file that holds the history.
        offline: Whether nothing beyond this machine is asked.
        verify: Whether all of the store is read.
    """
    daemons = (EngineName.DOCKER, EngineName.PODMAN)
    network: tuple[Named, ...] = (("registry", registry),)
    return (
        *((name.value, partial(daemon, name, environ)) for name in daemons),
        (EngineName.EMBEDDED.value, embedded),
        ("auto", partial(chosen, environ)),
        *(() if offline else network),
        ("apt", apt),
        ("user namespaces", namespaces),
        ("disk", partial(disk, home)),
        ("store", partial(store, home)),
        *(((VERIFIED, partial(verified, home)),) if verify else ()),
        ("history", partial(history, project / "history.sqlite")),
    )


def run(checks: Iterable[Named]) -> Iterator[Check]:
    """Yield what each check finds, as soon as it does; none of them stops the others."""
    for name, check in checks:
        try:
            found = check()
        except VariantsError as error:
            found = Check(name=name, state=State.TROUBLE, words=error.message, hint=error.hint)
        except (OSError, subprocess.SubprocessError) as error:
            found = Check(name=name, state=State.TROUBLE, words=_line(error))
        except Exception as error:  # noqa: BLE001  # a defect of one check is its own finding
            found = Check(
                name=name,
                state=State.TROUBLE,
                words=f"the check itself failed: {type(error).__name__}: {_line(error)}",
                hint="That is a defect of nox-variants: please report it.",
            )
        if found is not None:
            yield found


def healthy(checks: Iterable[Check]) -> bool:
    """Tell whether there is an engine that can be used."""
    return any(check.state is State.USABLE and check.name in set(EngineName) for check in checks)


# --- engines ------------------------------------------------------------------------------------


def daemon(name: EngineName, environ: Mapping[str, str]) -> Check:
    """Ask Docker or Podman who it is, and try how it builds."""
    from nox_variants.engines.docker import choosing, connection  # noqa: PLC0415  # 50 ms

    try:
        found = connection.connect(name, environ)
    except EngineUnavailable as error:
        state = State.TROUBLE if expected(name, environ) else State.MISSING
        return Check(name=name, state=state, words=error.message, hint=error.hint)
    try:
        return answered(name, found, choosing.choose(found, environ).name)
    finally:
        found.client.close()


def answered(name: str, found: Daemon, builder: str) -> Check:
    """Return what there is to say of a daemon that answered."""
    return Check(
        name=name,
        state=State.USABLE,
        words=f"{found.info.name} {found.info.version} (API {found.client.api.api_version})"
        f" answers at {found.why}; it builds with {builder}",
        notes=found.info.notes,
    )


def expected(name: str, environ: Mapping[str, str]) -> bool:
    """Tell whether somebody named a daemon, or a socket of one is there: it should answer."""
    from nox_variants.engines.docker import connection  # noqa: PLC0415

    found = connection.addresses(name, environ, thorough=False)
    paths = (each.url.removeprefix("unix://") for each in found)
    return any(each.why != "the usual socket" for each in found) or any(
        path.startswith("/") and Path(path).exists() for path in paths
    )


def embedded() -> Check:
    """Start a sandbox."""
    from nox_variants.sandbox import bubblewrap  # noqa: PLC0415

    name = EngineName.EMBEDDED
    try:
        bwrap = bubblewrap.find_bwrap()
    except EngineUnavailable as error:
        return Check(name=name, state=State.MISSING, words=error.message, hint=error.hint)
    try:
        version = bubblewrap.probe()
    except EngineUnavailable as error:
        return Check(
            name=name,
            state=State.TROUBLE,
            words=error.message,
            hint="What to do is said at user namespaces.",
        )
    words = f"bubblewrap {version} at {bwrap}; it builds in sandboxes, without a daemon"
    return Check(name=name, state=State.USABLE, words=words)


def namespaces() -> Check:
    """Tell whether the kernel lets an ordinary user make a sandbox."""
    from nox_variants.sandbox import bubblewrap  # noqa: PLC0415

    name = "user namespaces"
    try:
        bubblewrap.find_bwrap()
    except EngineUnavailable:
        words = "not tried, for there is no bubblewrap"
        return Check(name=name, state=State.MISSING, words=words)
    try:
        bubblewrap.probe()
    except EngineUnavailable as error:
        return Check(name=name, state=State.TROUBLE, words=error.message, hint=error.hint)
    return Check(name=name, state=State.USABLE, words="the kernel lets bubblewrap make a sandbox")


def chosen(environ: Mapping[str, str]) -> Check:
    """Tell which engine a run would take, and why."""
    from nox_variants.engines import selection  # noqa: PLC0415
    from nox_variants.sandbox import bubblewrap  # noqa: PLC0415

    asked = environ.get("NOX_VARIANTS_ENGINE") or selection.AUTO
    if asked not in selection.NAMES:
        return Check(
            name="auto",
            state=State.TROUBLE,
            words=f"NOX_VARIANTS_ENGINE: {asked!r} is no engine",
            hint=f"Set it to one of {', '.join(selection.NAMES)}, or unset it.",
        )
    choice = selection.choose(asked, environ)
    said = "" if asked == selection.AUTO else "NOX_VARIANTS_ENGINE is set: "
    if choice.daemon is not None:
        choice.daemon.client.close()
        words = f"{said}{choice.daemon.info.name}: {choice.why}"
        return Check(name="auto", state=State.USABLE, words=words)
    bubblewrap.probe()
    return Check(
        name="auto", state=State.USABLE, words=f"{said}{EngineName.EMBEDDED}: {choice.why}"
    )


# --- what images come from ----------------------------------------------------------------------


def registry(url: str = REGISTRY, seconds: float = REGISTRY_SECONDS) -> Check:
    """Ask Docker Hub, through the proxies and with the CAs of the environment."""
    import requests  # noqa: PLC0415  # 60 ms that --offline does without

    host = url.split("/")[2]
    try:
        answer = requests.get(url, timeout=seconds, allow_redirects=False, stream=True)
        answer.close()
    except (requests.RequestException, OSError, ValueError) as error:
        return Check(
            name="registry",
            state=State.TROUBLE,
            words=f"{host} cannot be reached from here: {_line(error)}",
            hint="Behind a proxy set HTTPS_PROXY, with a CA of one's own REQUESTS_CA_BUNDLE."
            " Images out of packages (apt) need no registry.",
        )
    if answer.status_code in {requests.codes.ok, requests.codes.unauthorized}:
        return Check(name="registry", state=State.USABLE, words=f"{host} answers")
    return Check(
        name="registry",
        state=State.TROUBLE,
        words=f"{host} answers {answer.status_code} {answer.reason}",
        hint="Is there a proxy or a mirror in between that refuses?",
    )


def apt() -> Check:
    """Tell whether images can be made of packages here, and of which release's."""
    try:
        release = platform.freedesktop_os_release().get("PRETTY_NAME", "an unknown system")
    except OSError:
        release = f"{platform.system()} without /etc/os-release"
    if lacking := [tool for tool in APT_TOOLS if shutil.which(tool) is None]:
        return Check(
            name="apt",
            state=State.MISSING,
            words=f"{', '.join(lacking)} not found on {release}",
            hint="Stand-ins out of packages need Debian or Ubuntu.",
        )
    done = subprocess.run(
        ["apt-get", "--version"],
        capture_output=True,
        text=True,
        check=False,
        timeout=_TOOL_SECONDS,
    )
    version = done.stdout.partition("\n")[0].partition(" (")[0] or "apt"
    return Check(name="apt", state=State.USABLE, words=f"{version}, packages of {release}")


# --- places -------------------------------------------------------------------------------------


def disk(home: Path, little: int = LITTLE) -> Check:
    """Tell how much room there is for the store."""
    place = home
    while not place.exists() and place != place.parent:
        place = place.parent
    usage = shutil.disk_usage(place)
    words = f"{size(usage.free)} free of {size(usage.total)} at {home}"
    effective = os.access in os.supports_effective_ids
    if not os.access(place, os.W_OK, effective_ids=effective):
        return Check(
            name="disk",
            state=State.TROUBLE,
            words=f"{words}, where this user may not write",
            hint="Point NOX_VARIANTS_HOME elsewhere.",
        )
    if usage.free < little:
        return Check(
            name="disk",
            state=State.TROUBLE,
            words=words,
            hint="nox-variants clean --keep 1GB makes room, or point NOX_VARIANTS_HOME elsewhere.",
        )
    return Check(name="disk", state=State.USABLE, words=words)


def store(home: Path, most: int = MOST_FILES) -> Check:
    """Tell how large the store is, by kind; after so many files it says what it has seen."""
    from nox_variants.store import check_format  # noqa: PLC0415
    from nox_variants.usage import KINDS, OTHER, Meter  # noqa: PLC0415

    if not home.is_dir():
        return Check(name="store", state=State.MISSING, words=f"nothing is kept at {home} yet")
    check_format(home)
    meter, folders = Meter(most), KINDS | OTHER
    sizes = {words: meter.size(home / kind) for kind, words in reversed(folders.items())}
    kinds = ", ".join(f"{words} {size(sizes[words])}" for words in folders.values() if sizes[words])
    more = "at least " if meter.spent else ""
    words = f"{more}{size(sum(sizes.values()))}{f': {kinds}' if kinds else ''}"
    note = (f"only {most} files were looked at",) if meter.spent else ()
    return Check(name="store", state=State.USABLE, words=words, notes=note)


def verified(home: Path) -> Check:
    """Read all of the store; what is damaged is out of it afterwards."""
    from nox_variants.store import Store  # noqa: PLC0415
    from nox_variants.verification import verify  # noqa: PLC0415

    if not home.is_dir():
        return Check(name=VERIFIED, state=State.MISSING, words="there is nothing to verify yet")
    found = list(verify(Store(home)))
    damaged = tuple(f"{each.kind}/{each.key}: {each.damage}" for each in found if each.damage)
    if not damaged:
        return Check(
            name=VERIFIED,
            state=State.USABLE,
            words=f"all {len(found)} entries of the store are what was written",
        )
    return Check(
        name=VERIFIED,
        state=State.TROUBLE,
        words=f"{len(damaged)} of {len(found)} entries are not what was written: taken out",
        hint="They are made again when they are needed. Does this happen again? Check the disk.",
        notes=damaged,
    )


def history(file: Path) -> Check | None:
    """Tell whether a project's records can be read; None when it has none."""
    from nox_variants.history import History  # noqa: PLC0415

    if not file.is_file():
        return None
    notes: list[str] = []
    with History(file, note=notes.append) as found:
        last = found.last_run()
        records = len(found.run(last)) if last else 0
    said = f"the last run is {last}, with {records} records" if last else "no run yet"
    words = f"{size(file.stat().st_size)} at {file}: {said}"
    state = State.TROUBLE if notes else State.USABLE
    return Check(name="history", state=state, words=words, notes=tuple(notes))


# --- words --------------------------------------------------------------------------------------


def lines(check: Check, width: int) -> tuple[str, ...]:
    """Return a check as lines of text.

    Args:
        check: What was found.
        width: Columns for names.
    """
    states = max(map(len, State))
    first = f"{check.name:<{width}}  {check.state:<{states}}  {check.words}"
    below = (*check.notes, *((check.hint,) if check.hint else ()))
    return (first, *(f"{'':<{width}}  {'':<{states}}  {line}" for line in below))


def _line(error: BaseException) -> str:
    """Return the innermost reason of an error, in a line."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return " ".join(str(error).split())[:200] or type(error).__name__
