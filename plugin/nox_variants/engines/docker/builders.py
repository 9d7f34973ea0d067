"""Who builds a Dockerfile: buildx, the BuildKit of `docker build`, or the daemon's own builder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

from nox_variants.engines.docker.answers import Answer, heard
from nox_variants.engines.docker.connection import DaemonError, explained
from nox_variants.errors import BuildFailed
from nox_variants.oci.layer import plain_file, write_tree

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from requests import Response

    from nox_variants.engines.docker.connection import Daemon
    from nox_variants.model import Pairs
    from nox_variants.registrycache import RegistryCache

DOCKERFILE = "Dockerfile"
BUILDX = "buildx"

OWN_DRIVER = "docker"
"""buildx's driver for the BuildKit inside of a daemon; all others build elsewhere."""

_POLL = 0.1
_KEPT = 4096
_TRIAL = "FROM scratch\nLABEL nox-variants.trial=1\n"

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
        contexts: Images that FROM names and the builder cannot find, and where they are.
        cache_tags: Its tags in a registry cache: it takes layers from all, and leaves them at the
            first.
    """

    dockerfile: str
    context: Path
    tag: str = ""
    labels: Pairs = ()
    network: bool = True
    cache: bool = True
    output: Path | None = None
    contexts: Pairs = ()
    cache_tags: tuple[str, ...] = ()


class Builder(Protocol):
    """Builds Dockerfiles."""

    @property
    def name(self) -> str:
        """What it is, for `doctor` and the record."""

    @property
    def buildkit(self) -> bool:
        """Whether it knows ``RUN --mount``."""

    @property
    def remote(self) -> bool:
        """Whether it builds elsewhere, and does not see the images of the daemon."""

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

_CACHE_FAILED = re.compile(
    r"^#(\d+) exporting cache to registry\n(?:.*\n)*?#\1 ERROR: (?P<why>.*)", re.MULTILINE
)
"""BuildKit's words for layers that a registry did not take, which fails no build."""

_RUNTIME_FAILED = re.compile(r"error running container: from \S+ creating container.*")


@dataclass(frozen=True, slots=True)
class Said:
    """What a client said.

    Attributes:
        good: Whether it did what it was asked.
        words: Its output; when it did not, its last words.
    """

    good: bool
    words: str


def ask(words: Sequence[str], environ: Mapping[str, str], seconds: float, given: str = "") -> Said:
    """Run a client that answers at once, as a rule.

    Args:
        words: Its command.
        environ: Its environment.
        seconds: How long it may take.
        given: Its standard input.
    """
    try:
        done = subprocess.run(
            words,
            input=given,
            env=environ,
            text=True,
            errors="replace",
            capture_output=True,
            check=False,
            timeout=seconds,
        )
    except OSError as error:
        return Said(good=False, words=error.strerror or str(error))
    except subprocess.TimeoutExpired:
        return Said(good=False, words=f"no answer within {seconds:.0f} seconds")
    if done.returncode:
        return Said(good=False, words=last_line(done.stderr).removeprefix("ERROR: "))
    return Said(good=True, words=done.stdout.strip())


def unheard(_: str) -> None:
    """Hear a note that nobody asked for."""


@dataclass(frozen=True, kw_only=True)
class Client:
    """A docker client on the command line that drives BuildKit.

    Attributes:
        name: What it is.
        command: The client and the words that make it build.
        environ: Its environment.
        driver: buildx's driver of its builder.
        cache: Where it finds layers and leaves them, or None.
        note: Told what goes wrong there.
    """

    name: str
    command: tuple[str, ...]
    environ: Mapping[str, str] = field(repr=False)
    driver: str = OWN_DRIVER
    cache: RegistryCache | None = None
    note: Callable[[str], None] = field(default=unheard, repr=False)
    buildkit: bool = True

    @property
    def buildx(self) -> bool:
        """Whether it is buildx."""
        return BUILDX in self.command

    @property
    def remote(self) -> bool:
        """Whether it builds elsewhere."""
        return self.driver != OWN_DRIVER

    @property
    def _load(self) -> tuple[str, ...]:
        """What buildx needs to be told, which can build elsewhere: the daemon gets the image."""
        return ("--load",) if self.buildx else ()

    def trial(self, seconds: float, tag: str = "") -> Said:
        """Build an image of nothing, and say its id.

        Args:
            seconds: How long that may take.
            tag: ``NAME:TAG`` of the image; empty for none.
        """
        named = ("--tag", tag) if tag else ()
        with tempfile.TemporaryDirectory() as folder:
            words = [*self.command, *self._load, *named, "--quiet", "--file", "-", folder]
            return ask(words, self.environ, seconds, _TRIAL)

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
            words += [
                p for name, where in job.contexts for p in ("--build-context", f"{name}={where}")
            ]
            words += self._caches(job)
            code, last = _run([*words, os.fspath(job.context)], self.environ, log, cancelled)
        if cancelled.is_set():
            raise DaemonError("cancelled")
        if code:
            raise failure(last_line(last))
        if self.cache and (found := _CACHE_FAILED.search(last)):
            self.note(f"cache: {self.cache.repository} does not take layers: {found['why']}")

    def _caches(self, job: Job) -> Iterator[str]:
        if self.cache is None or not job.cache_tags:
            return
        for tag in job.cache_tags if job.cache else ():
            yield from ("--cache-from", self.cache.source(tag))
        if self.cache.write:
            yield from ("--cache-to", self.cache.target(job.cache_tags[0]))

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


def last_line(text: str) -> str:
    """Return the last words of a client."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "the client said nothing"


@dataclass(frozen=True)
class Classic:
    """The daemon's own builder, through the SDK: Docker's classic one, and Podman's."""

    daemon: Daemon
    name: str = "the daemon's builder"
    buildkit: bool = False
    remote: bool = False

    def build(self, job: Job, log: Callable[[bytes], None], cancelled: threading.Event) -> None:
        """Send the context and follow the build's output."""
        said = ""
        with (
            explained(f"building {job.tag}"),
            _context(job) as context,
            closing(Answer(lambda: self._asked(job, context))) as answer,
        ):
            for line in heard(answer.lines, cancelled):
                words = str(line.get("stream", ""))
                log(words.encode())
                said = (said + words)[-_KEPT:]
                if error := line.get("error"):
                    raise failure(" ".join(str(error).split()), said)

    def _asked(self, job: Job, context: IO[bytes]) -> Response:
        api = self.daemon.client.api
        return api.post(
            f"{api.base_url}/v{api.api_version}/build",
            params={
                "dockerfile": DOCKERFILE,
                "t": job.tag,
                "labels": json.dumps(dict(job.labels)),
                "nocache": not job.cache,
                "networkmode": None if job.network else "none",
                "rm": True,
                "forcerm": True,
            },
            headers={"Content-Type": "application/x-tar"},
            data=context,
            stream=True,
            timeout=None,
        )


@contextmanager
def _context(job: Job) -> Iterator[IO[bytes]]:
    """Yield the context as a tar, with the Dockerfile in it."""
    with tempfile.TemporaryFile() as file:
        file.write(plain_file(DOCKERFILE, job.dockerfile.encode()))
        write_tree(job.context, file, mtime=0)
        file.seek(0)
        yield file
