"""Who builds a Dockerfile: buildx, the BuildKit of `docker build`, or the daemon's own builder.

What works is found out by trying, once, with an image of nothing: version numbers do not say
whether a client has its plugin and a daemon its BuildKit.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

from nox_variants.engines.docker.connection import DaemonError, explained
from nox_variants.errors import BuildFailed, StoreError
from nox_variants.oci.digest import canonical_json
from nox_variants.oci.layer import BLOCK, header, write_tree

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from nox_variants.engines.docker.connection import Daemon
    from nox_variants.model import Pairs
    from nox_variants.store import Store

DOCKERFILE = "Dockerfile"
BUILDX = "buildx"

_POLL = 0.1
_KEPT = 4096
_TRIAL = "FROM scratch\nLABEL nox-variants.trial=1\n"
_TRIAL_SECONDS = 30
_PLUGIN = "docker-buildx"
_PLUGIN_FOLDERS = tuple(
    Path("/usr", folder, "docker/cli-plugins")
    for folder in ("local/lib", "local/libexec", "lib", "libexec")
)
"""Where docker clients look for plugins, besides the user's own folder (docker/cli, manager)."""

_COMMAND_FAILED = re.compile(
    r"exit code: \d+|returned a non-zero code: \d+|exit status \d+|did not complete successfully"
)
"""BuildKit's, the classic builder's and Podman's words for a command that failed: all else that
ends a build is not about the program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One build.

    Attributes:
        dockerfile: Its text.
        context: The folder of the build context.
        tag: ``NAME:TAG`` of the result; empty where its files are wanted.
        labels: Labels of the result.
        network: Whether commands may use the network.
        cache: Whether layers of earlier builds are good.
        output: A folder for the files of the result, which is then no image; BuildKit only.
    """

    dockerfile: str
    context: Path
    tag: str = ""
    labels: Pairs = ()
    network: bool = True
    cache: bool = True
    output: Path | None = None


class Builder(Protocol):
    """Builds Dockerfiles."""

    @property
    def name(self) -> str:
        """What it is, for `doctor` and the record."""

    @property
    def buildkit(self) -> bool:
        """Whether it knows ``RUN --mount``."""

    def build(self, job: Job, log: Callable[[bytes], None], cancelled: threading.Event) -> None:
        """Build, and pass the output on as it comes.

        Raises:
            BuildFailed: A command of the Dockerfile failed.
            DaemonError: The daemon or its client did, or the run was cancelled.
        """


MISSING = re.compile(
    r'failed to (?:compute cache key|calculate checksum)[^"]*"(?P<path>/[^"]*)":? not found'
)
"""BuildKit's words for a COPY of what is not there, old and new."""

_RUNTIME_FAILED = re.compile(r"error running container: from \S+ creating container.*")


def choose(daemon: Daemon, environ: Mapping[str, str], store: Store | None = None) -> Builder:
    """Return the best builder that works with a daemon.

    Args:
        daemon: The daemon.
        environ: The environment, for PATH and what clients need.
        store: Where the answer is kept until a client, a plugin or the daemon changes.
    """
    offered = {client.command: client for client in _offered(daemon, environ)}
    if store is None:
        return offered.get(_tried(offered.values(), daemon)) or Classic(daemon)
    key = _circumstances(daemon, environ)
    command = _remembered(store, key)
    if command is None or (command and command not in offered):
        command = _tried(offered.values(), daemon)
        with store.publish("facts", key, replace=True) as staging:
            store.write_json(staging / "builder.json", {"command": command})
    return offered.get(command) or Classic(daemon)


def _remembered(store: Store, key: str) -> tuple[str, ...] | None:
    folder = store.find("facts", key)
    if folder is None:
        return None
    with suppress(StoreError, LookupError):
        return tuple(store.read_json(folder / "builder.json")["command"])
    return None


def _offered(daemon: Daemon, environ: Mapping[str, str]) -> Iterator[Client]:
    settings = {**environ, **dict(daemon.environ)}
    for client in _clients(environ.get("PATH", "")):
        yield Client(name=BUILDX, command=(client, "buildx", "build"), environ=settings)
        yield Client(
            name="docker build (BuildKit)",
            command=(client, "build"),
            environ={**settings, "DOCKER_BUILDKIT": "1"},
        )


def _tried(clients: Iterable[Client], daemon: Daemon) -> tuple[str, ...]:
    """Return the command of the first client that can build; empty where none can."""
    for client in clients:
        if made := client.trial():
            with suppress(Exception):
                daemon.client.images.remove(made)
            return client.command
    return ()


def _clients(path: str) -> Iterator[str]:
    """Yield every docker client on PATH: the first may lack the plugin that a later one has."""
    for folder in dict.fromkeys(path.split(os.pathsep)):
        found = shutil.which("docker", path=folder) if folder else None
        if found:
            yield found


def _circumstances(daemon: Daemon, environ: Mapping[str, str]) -> str:
    """Return the identity of all that decides which builder works."""
    config = Path(environ.get("DOCKER_CONFIG") or Path(environ.get("HOME", "/"), ".docker"))
    plugins = [folder / _PLUGIN for folder in (config / "cli-plugins", *_PLUGIN_FOLDERS)]
    chosen = [config / "buildx" / name for name in ("current", "instances")]
    files = [*map(Path, _clients(environ.get("PATH", ""))), *plugins, *chosen]
    value = [
        daemon.id,
        daemon.info.version,
        daemon.environ,
        environ.get("BUILDX_BUILDER", ""),
        [(os.fspath(file), _changed(file)) for file in files],
    ]
    return hashlib.sha256(canonical_json(value)).hexdigest()


def _changed(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


@dataclass(frozen=True, kw_only=True)
class Client:
    """A docker client on the command line that drives BuildKit."""

    name: str
    command: tuple[str, ...]
    environ: Mapping[str, str] = field(repr=False)
    buildkit: bool = True

    @property
    def _load(self) -> tuple[str, ...]:
        """What buildx needs to be told, which can build elsewhere: the daemon gets the image."""
        return ("--load",) if self.name == BUILDX else ()

    def trial(self) -> str:
        """Build an image of nothing; returns its id, or nothing when that does not work."""
        with tempfile.TemporaryDirectory() as folder:
            try:
                done = subprocess.run(
                    [*self.command, *self._load, "--quiet", "--file", "-", folder],
                    input=_TRIAL,
                    env=self.environ,
                    text=True,
                    capture_output=True,
                    check=False,
                    timeout=_TRIAL_SECONDS,
                )
            except (OSError, subprocess.TimeoutExpired):
                return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    def build(self, job: Job, log: Callable[[bytes], None], cancelled: threading.Event) -> None:
        """Run the client; its plain progress is the log."""
        with tempfile.TemporaryDirectory(prefix="nox-variants-") as folder:
            dockerfile = Path(folder, DOCKERFILE)
            dockerfile.write_text(job.dockerfile, encoding="utf-8")
            words = [*self.command, "--progress", "plain", "--file", os.fspath(dockerfile)]
            words += self._result(job)
            words += [part for name, value in job.labels for part in ("--label", f"{name}={value}")]
            words += [] if job.network else ["--network", "none"]
            words += [] if job.cache else ["--no-cache"]
            code, last = _run([*words, os.fspath(job.context)], self.environ, log, cancelled)
        if cancelled.is_set():
            raise DaemonError("cancelled")
        if code:
            raise failure(_last_line(last))

    def _result(self, job: Job) -> tuple[str, ...]:
        if job.output is None:
            return (*self._load, "--tag", job.tag)
        # A list of comma-separated values (docker buildx build, "--output").
        place = f"dest={os.fspath(job.output)}".replace('"', '""')
        return ("--output", f'type=local,"{place}"')


def _run(
    words: list[str],
    environ: Mapping[str, str],
    log: Callable[[bytes], None],
    cancelled: threading.Event,
) -> tuple[int, str]:
    """Run a client to its end, or to ours; returns its exit code and its last words."""
    import select  # noqa: PLC0415  # poll is not everywhere

    last = b""
    with subprocess.Popen(
        words,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        if process.stdout is None:
            raise AssertionError
        descriptor = process.stdout.fileno()
        poller = select.poll()
        poller.register(descriptor, select.POLLIN | select.POLLHUP)
        while True:
            if cancelled.is_set():
                process.terminate()
            if poller.poll(_POLL * 1000):
                data = os.read(descriptor, 65536)
                if not data:
                    break
                last = (last + data)[-8192:]
                log(data)
    return process.returncode, last.decode(errors="replace")


def failure(words: str, said: str = "") -> BuildFailed | DaemonError:
    """Return the error of a build.

    Args:
        words: What ended it.
        said: The end of its output: Podman's runtime tells there that it could not start at all.
    """
    if found := _RUNTIME_FAILED.search(said):
        return DaemonError(f"the build could not be done: {found[0]}")
    if _COMMAND_FAILED.search(words):
        return BuildFailed(words)
    return DaemonError(f"the build could not be done: {words}")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "the client said nothing"


@dataclass(frozen=True)
class Classic:
    """The daemon's own builder, through the SDK: Docker's classic one, and Podman's."""

    daemon: Daemon
    name: str = "the daemon's builder"
    buildkit: bool = False

    def build(self, job: Job, log: Callable[[bytes], None], cancelled: threading.Event) -> None:
        """Send the context and follow the build's output."""
        with explained(f"building {job.tag}"), _context(job) as context:
            lines = self.daemon.client.api.build(
                fileobj=context,
                custom_context=True,
                dockerfile=DOCKERFILE,
                tag=job.tag,
                labels=dict(job.labels),
                nocache=not job.cache,
                network_mode=None if job.network else "none",
                rm=True,
                forcerm=True,
                decode=True,
                timeout=None,
            )
            self._follow(lines, log, cancelled)

    @staticmethod
    def _follow(
        lines: Iterator[dict[str, str]], log: Callable[[bytes], None], cancelled: threading.Event
    ) -> None:
        said = ""
        for line in lines:
            if cancelled.is_set():
                raise DaemonError("cancelled")
            log(line.get("stream", "").encode())
            said = (said + line.get("stream", ""))[-_KEPT:]
            if error := line.get("error"):
                raise failure(" ".join(error.split()), said)


@contextmanager
def _context(job: Job) -> Iterator[IO[bytes]]:
    """Yield the context as a tar, with the Dockerfile in it."""
    text = job.dockerfile.encode()
    with tempfile.TemporaryFile() as file:
        file.write(header(DOCKERFILE, len(text)) + text + bytes(-len(text) % BLOCK))
        write_tree(job.context, file, mtime=0)
        file.seek(0)
        yield file
