"""Smoke runs as containers: created, attached, started, watched, removed, whatever happens."""

from __future__ import annotations

import datetime as dt
import re
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nox_variants.engines.docker import companion, refusals
from nox_variants.engines.docker.answers import hang_up
from nox_variants.engines.docker.connection import DaemonError, explained
from nox_variants.results import EngineName, Observation
from nox_variants.sandbox.bubblewrap import HOSTNAME
from nox_variants.sandbox.probes import Probe, not_started
from nox_variants.sandbox.program import OPEN_FILES, SHM_SIZE, SIGNALLED, TMP_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from docker.errors import APIError
    from docker.models.containers import Container
    from docker.models.images import Image

    from nox_variants.engines.docker.companion import Brought, Companion
    from nox_variants.engines.docker.connection import Daemon
    from nox_variants.engines.docker.offline import Offline
    from nox_variants.model import Pairs, Smoke
    from nox_variants.results import ServiceSeen

TICK = 0.05
"""Seconds between two looks at a running container's clock and cancellation."""

SOON = 0.01
"""Seconds between two looks at a container that has closed its output, so that it is ending."""

LOOK = 0.5
"""Seconds between two looks at its number of processes."""

GRACE = 10.0
"""Seconds that the daemon gets to end a container that was killed."""

FIRST = 1.0
"""Seconds in which a program may be killed for its memory before the daemon listens for that."""

AGAIN = 3
"""Further runs of a program that was killed so soon, until one is told of."""

NOTED = 0.5
"""Seconds after which the daemon has noted that it ended a container."""

_SIGNALS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is run.

    Attributes:
        image: The image's id.
        cmd: Its command, and the smoke run's arguments.
        env: Environment of the smoke run.
        labels: Labels of the container.
        agrees: Tells whether the image's files agree with the runtime's words on a container's
            standard error: any program may print them.
        brought: What is brought for it; None for nothing.
    """

    image: str
    cmd: tuple[str, ...]
    env: Pairs
    labels: Pairs
    agrees: Callable[[str], bool]
    brought: Brought | None = None


class Reaper:
    """Removes containers in the background: it takes the daemon as long as running them."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="nox-variants-remove")

    def remove(self, *made: Container | Image) -> None:
        """Remove containers and images, in order and soon.

        What is left for any reason is removed by a later run.
        """
        try:
            self._pool.submit(_remove, *made)
        except RuntimeError:  # the interpreter is on its way out
            _remove(*made)

    def close(self) -> None:
        """Wait until all are removed."""
        self._pool.shutdown()


def _remove(*made: Container | Image) -> None:
    from docker.models.containers import Container  # noqa: PLC0415  # with the SDK

    for each in made:
        with suppress(Exception):
            if isinstance(each, Container):
                each.remove(force=True, v=True)
            else:
                each.remove(force=True)


def heard_of(name: EngineName, observe: Callable[[], Observation]) -> Observation:
    """Return what was seen of a run whose end the daemon has understood, if there is one.

    Docker listens for the kernel's word on memory when a program runs already (containerd,
    runtime/v2/runc, ``service.Start``): of one that is killed at once, it may not hear why. So
    that is run again. Podman never hears of those.

    Args:
        name: The daemon's.
        observe: Runs the program.
    """
    first = observe()
    if name is EngineName.DOCKER and first.signal == signal.SIGKILL and first.seconds < FIRST:
        for _ in range(AGAIN):
            seen = observe()
            if seen.out_of_memory:
                return seen
    return first


def observe(  # noqa: PLR0917
    daemon: Daemon,
    run: Run,
    smoke: Smoke,
    offline: Offline,
    reaper: Reaper,
    cancelled: threading.Event,
) -> Observation:
    """Run a container within the limits and report what was seen.

    Raises:
        DaemonError: The daemon failed, or the run was cancelled; says nothing about the program.
    """
    if cancelled.is_set():
        raise DaemonError("cancelled")
    made: list[Container | Image] = []
    with explained(f"running {' '.join(run.cmd[:1]) or run.image}"):
        try:
            with ExitStack() as stack:
                probe = Probe(smoke)
                beside = None
                place: dict[str, Any] = {"hostname": HOSTNAME}
                if run.brought is None:
                    place |= offline.options(run.image)
                else:
                    helper = companion.create(daemon, run.brought, run.labels)
                    made.append(helper)
                    beside = companion.Companion(helper, run.brought.fixtures, probe)
                    stack.callback(beside.close)
                    place = companion.joined(daemon, helper, run.brought)
                    if added := companion.files(daemon, run.brought):
                        made += companion.derive(daemon, run.image, added, run.labels)
                        run = replace(run, image=str(made[-1].id))
                container = _create(daemon, run, smoke, **place)
                made.append(container)
                if beside is not None:
                    beside.wait(cancelled)
                watch = _Watch(daemon, container, smoke, probe, beside)
                return watch.observe(run.agrees, cancelled)
        finally:
            reaper.remove(*reversed(made))


def _create(daemon: Daemon, run: Run, smoke: Smoke, **network: Any) -> Container:
    from docker.types import LogConfig  # noqa: PLC0415  # with the SDK

    return daemon.client.containers.create(
        run.image,
        command=list(run.cmd),
        environment=dict(run.env),
        labels=dict(run.labels),
        stdin_open=smoke.stdin is not None,
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        shm_size=SHM_SIZE,
        tmpfs={"/tmp": f"rw,nosuid,nodev,size={TMP_SIZE},mode=1777"},  # noqa: S108
        mem_limit=smoke.memory,
        memswap_limit=smoke.memory,
        pids_limit=2 * smoke.processes + 16,
        ulimits=_ulimits(smoke),
        log_config=LogConfig(type="none"),
        **network,
    )


def _ulimits(smoke: Smoke) -> list[Any]:
    from docker.types import Ulimit  # noqa: PLC0415  # with the SDK

    limits = {
        "fsize": smoke.file_size,
        "core": 0,
        "nofile": OPEN_FILES,  # Podman needs this one and the next
        "nproc": 2 * smoke.processes + 16,
    }
    return [Ulimit(name=name, soft=most, hard=most) for name, most in limits.items()]


class _Watch:
    """One container from its start to its end."""

    def __init__(
        self,
        daemon: Daemon,
        container: Container,
        smoke: Smoke,
        probe: Probe,
        beside: Companion | None,
    ) -> None:
        self._daemon = daemon
        self._container = container
        self._smoke = smoke
        self._probe = probe
        self._beside = beside
        self._kept = {"stdout": bytearray(), "stderr": bytearray()}
        self._truncated = self._timed_out = self._process_limit = self._killed = False
        self._seconds = 0.0
        self._late = 0.0
        self._service: ServiceSeen | None = None

    def observe(self, agrees: Callable[[str], bool], cancelled: threading.Event) -> Observation:
        from docker.errors import APIError  # noqa: PLC0415  # with the SDK

        try:
            output = self._container.attach(stdout=True, stderr=True, stream=True, demux=True)
            stdin = self._attach_stdin()
        except APIError as error:  # Podman looks for the program when it attaches
            return self._not_started(self._refused(error))
        reader = threading.Thread(target=self._read, args=(output,), daemon=True)
        reader.start()
        begin = time.monotonic()
        if self._beside is not None:
            self._beside.begin = begin
        with ExitStack() as unfed:
            if stdin is not None:
                unfed.callback(hang_up, stdin)
            if words := self._start():
                return self._not_started(words)
            unfed.pop_all()
        running = time.monotonic()
        if stdin is not None:
            threading.Thread(target=self._feed, args=(stdin,), daemon=True).start()
        self._wait(reader, begin, cancelled)
        end = time.monotonic()
        self._seconds = end - running
        reader.join(GRACE)
        if self._beside is not None:
            self._beside.finish()
        self._late = running - begin
        self._service = self._served(end - begin)
        words = self._said_by_runtime(self._container.attrs["State"])
        if words and agrees(words):
            return self._not_started(words)
        self._check_undisturbed(self._container.attrs["State"])
        return self._seen(self._container.attrs["State"])

    def _check_undisturbed(self, state: dict[str, Any]) -> None:
        """Ask who ended a program that failed, where it was not us: a daemon that stops ends all.

        Raises:
            DaemonError: Somebody else did.
        """
        from docker.errors import APIError  # noqa: PLC0415  # with the SDK

        docker = self._daemon.info.name is EngineName.DOCKER  # no other ends what it runs
        if not docker or self._killed or self._smoke.service or not state.get("ExitCode"):
            return
        with suppress(APIError, KeyError, ValueError):  # it does not say
            begin, end = (_moment(state[name]).timestamp() for name in ("StartedAt", "FinishedAt"))
            said = self._daemon.client.api.events(  # type: ignore[call-overload]  # fractions
                since=f"{begin:.6f}",
                until=f"{end + NOTED:.6f}",
                filters={"container": str(self._container.id), "event": "kill"},
                decode=True,
            )
            if list(said):
                raise DaemonError(
                    "the daemon ended the container",
                    hint="Was it stopped or restarted, or did somebody else do that? Run again.",
                )

    def _said_by_runtime(self, state: dict[str, Any]) -> str:
        """Return the runtime's words, or a program's that speaks like it; nothing for others."""
        stdout, stderr = self._kept.values()
        if stdout or not state.get("ExitCode"):
            return ""
        return refusals.on_stderr(stderr.decode(errors="replace"))

    def _served(self, end: float) -> ServiceSeen | None:
        """Return what was seen of a server.

        Args:
            end: Seconds from the container's start to its end.
        """
        seen = self._probe.seen(end, killed=self._killed)
        return seen and replace(seen, seconds=max(0.0, seen.seconds - self._late))

    def _not_started(self, words: str) -> Observation:
        return Observation(started=False, exec_error=words, service=not_started(self._smoke))

    def _start(self) -> str:
        """Start the container; returns the runtime's words when the program cannot be executed."""
        from docker.errors import APIError  # noqa: PLC0415  # with the SDK

        try:
            self._container.start()
        except APIError as error:
            return self._refused(error)
        return ""

    def _refused(self, error: APIError) -> str:
        """Return the runtime's words when the program cannot be executed.

        Raises:
            APIError: It is something else that failed.
        """
        words = " ".join(str(error.explanation or error).split())
        if refusals.may_be(words) and (refusals.is_one(words) or self._container_failed()):
            return words
        raise error

    def _container_failed(self) -> bool:
        """Tell a program that cannot be executed from a daemon that cannot start anything."""
        self._container.reload()
        return self._container.attrs["State"].get("ExitCode") in {126, 127}

    def _attach_stdin(self) -> Any:
        if self._smoke.stdin is None:
            return None
        return self._container.attach_socket(params={"stdin": 1, "stream": 1})

    def _feed(self, stdin: Any) -> None:
        """Send what the program reads, and await the end of the connection."""
        raw = getattr(stdin, "_sock", stdin)
        with suppress(OSError):
            raw.sendall((self._smoke.stdin or "").encode())
        with suppress(OSError):
            raw.shutdown(socket.SHUT_WR)
            raw.recv(1)
        hang_up(stdin)

    def _read(self, output: Any) -> None:
        """Keep what fits, throw the rest away: nothing blocks the program. Then await its end."""
        with suppress(Exception):  # its thread's end is what is waited for
            try:
                for parts in output:
                    for name, data in zip(self._kept, parts, strict=True):
                        self._keep(self._kept[name], data or b"")
            finally:
                hang_up(output)
            if self._daemon.info.name is EngineName.DOCKER:  # Podman looks every 250 ms
                self._container.wait(timeout=self._smoke.timeout + GRACE)

    def _keep(self, kept: bytearray, data: bytes) -> None:
        room = self._smoke.output - len(kept)
        kept += data[:room]
        self._truncated |= len(data) > room

    def _wait(self, reader: threading.Thread, begin: float, cancelled: threading.Event) -> None:
        """Wait for the container's end; bring it about when it breaks a limit."""
        look = begin + LOOK
        while True:
            reader.join(TICK)
            if not reader.is_alive():
                if self._ended():
                    return
                time.sleep(SOON)
            now = time.monotonic()
            if cancelled.is_set():
                self._kill()
                raise DaemonError("cancelled")
            due = self._due(now - begin)
            late = now > begin + self._smoke.timeout
            self._timed_out = late and self._smoke.service is None
            if now > look:
                look = now + LOOK
                self._process_limit = self._processes() > self._smoke.processes
            if self._timed_out or self._process_limit or due is signal.SIGKILL:
                self._killed = True
                self._kill()
                return

    def _due(self, now: float) -> signal.Signals | None:
        """Return the signal that is due; SIGTERM has been sent then."""
        from docker.errors import APIError  # noqa: PLC0415  # with the SDK

        if self._beside is not None:
            self._beside.check()
        due = self._probe.due(now)
        if due is signal.SIGTERM:
            with suppress(APIError):  # it ended by itself in this very moment
                self._container.kill(signal=due.name)
        return due

    def _ended(self) -> bool:
        self._container.reload()
        return not self._container.attrs["State"].get("Running")

    def _kill(self) -> None:
        from docker.errors import APIError  # noqa: PLC0415  # with the SDK

        with suppress(APIError):  # it ended by itself in this very moment
            self._container.kill()
        end = time.monotonic() + GRACE
        while not self._ended() and time.monotonic() < end:
            time.sleep(TICK)

    def _processes(self) -> int:
        from docker.errors import APIError  # noqa: PLC0415  # with the SDK
        from requests.exceptions import JSONDecodeError  # noqa: PLC0415

        try:
            stats = self._daemon.client.api.stats(
                str(self._container.id), stream=False, one_shot=True
            )
        except (APIError, JSONDecodeError):  # Podman says nothing of what has just ended
            return 0
        return int((stats.get("pids_stats") or {}).get("current") or 0)

    def _seen(self, state: dict[str, Any]) -> Observation:
        stdout, stderr = (bytes(data).decode(errors="replace") for data in self._kept.values())
        code: int | None = state.get("ExitCode")
        memory = bool(state.get("OOMKilled"))
        stopped = memory or self._killed
        return Observation(
            started=True,
            exit_code=None if stopped else code,
            signal=None if stopped else _signal(code),
            stdout=stdout,
            stderr=stderr,
            truncated=self._truncated,
            timed_out=self._timed_out,
            out_of_memory=memory,
            process_limit=self._process_limit,
            # A short run may end before the daemon notes that it began.
            seconds=_seconds(state) or self._seconds,
            startup=self._startup(state, stopped=stopped),
            service=self._service,
            distrusted=self._probe.distrusted,
        )

    def _startup(self, state: dict[str, Any], *, stopped: bool) -> float | None:
        """Return how long it took a server to answer, or a program to end; None where unseen."""
        if self._smoke.service is None:
            return None if stopped else _seconds(state) or None
        answered = self._probe.answered
        return None if answered is None else max(0.0, answered - self._late) or None


def _signal(code: int | None) -> int | None:
    return code - SIGNALLED if code and SIGNALLED < code <= SIGNALLED + _SIGNALS else None


def _seconds(state: dict[str, Any]) -> float:
    """Return the wall time between start and end, by the daemon's clock."""
    try:
        begin, end = (_moment(state[name]) for name in ("StartedAt", "FinishedAt"))
    except (KeyError, ValueError):
        return 0.0
    return max(0.0, (end - begin).total_seconds())


def _moment(text: str) -> dt.datetime:
    """Return a time of RFC 3339, cut to microseconds."""
    return dt.datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
