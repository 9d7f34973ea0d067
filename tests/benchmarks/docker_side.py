"""The other side of the comparison: a private Docker daemon, one Dockerfile per variant."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from standins import roots
from workloads import FailedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

COMMANDS = {
    "dynamic": ("gcc", "gcc -O2 -o /hello hello.c"),
    "static": ("gcc", "gcc -O2 -static -o /hello hello.c"),
    "musl": ("alpine-gcc", "gcc -O2 -static -o /hello hello.c"),
    "musl-dynamic": ("alpine-gcc", "gcc -O2 -o /hello hello.c"),
}

DOCKERFILE = """\
FROM {build} AS build
WORKDIR /src
COPY . .
RUN {command}
FROM {run}
COPY --from=build /hello /hello
CMD ["/hello"]
"""


@dataclass(frozen=True, slots=True)
class _Variant:
    program: str
    link: str
    run: str

    @property
    def name(self) -> str:
        """What Compose calls its service, and Bake its target."""
        return f"{self.program}-{self.link}-{self.run.replace(':', '_')}"

    @property
    def tag(self) -> str:
        """The tag of its image."""
        return f"bench-{self.program}:{self.link}.{self.run.replace(':', '_')}"

    @property
    def dockerfile(self) -> str:
        """Its two stages."""
        build, command = COMMANDS[self.link]
        return DOCKERFILE.format(build=_tag(build), run=_tag(self.run), command=command)


@dataclass(frozen=True, slots=True)
class Case:
    """What all sides build and run.

    Attributes:
        folder: Has a folder of sources per program.
        programs: Their names.
        runs: Run images.
    """

    folder: Path
    programs: Sequence[str]
    runs: Sequence[str]

    @property
    def variants(self) -> Iterator[_Variant]:
        """All of them."""
        for program in self.programs:
            for link in COMMANDS:
                for run in self.runs:
                    yield _Variant(program, link, run)

    @property
    def _work(self) -> Path:
        return self.folder / "compose"

    @property
    def compose_file(self) -> Path:
        """What Compose reads."""
        return self._work / "docker-compose.yml"

    @property
    def bake_file(self) -> Path:
        """What Bake reads."""
        return self._work / "docker-bake.json"

    def write(self) -> Self:
        """Write a service, a target and a Dockerfile per variant."""
        for program in self.programs:
            shutil.copytree(self.folder / program, self._work / program)
        services, targets = {}, {}
        for each in self.variants:
            dockerfile = f"Dockerfile.{each.name}"
            (self._work / each.program / dockerfile).write_text(each.dockerfile, encoding="utf-8")
            built = {"context": each.program, "dockerfile": dockerfile}
            services[each.name] = {"build": built, "network_mode": "none"}
            targets[each.name] = {**built, "tags": [each.tag]}
        self.compose_file.write_text(json.dumps({"services": services}), encoding="utf-8")
        group = {"default": {"targets": list(targets)}}
        self.bake_file.write_text(json.dumps({"group": group, "target": targets}), encoding="utf-8")
        return self


class DockerSide:
    """Builds and runs every variant by hand, as a shell loop does."""

    def __init__(self, socket: Path) -> None:
        self.host = f"unix://{socket}"
        self._environ = {
            **os.environ,
            "DOCKER_HOST": self.host,
            "DOCKER_BUILDKIT": "1",
            "COMPOSE_DOCKER_CLI_BUILD": "1",
            "COMPOSE_PARALLEL_LIMIT": "1000",  # of more services than that, `up` never ends
            "PATH": f"/usr/bin:{os.environ.get('PATH', '')}",  # the client below, for compose
        }
        # Debian's own client: it drives BuildKit without the buildx plugin.
        self._client = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"
        self._loaded: set[str] = set()
        self._plugin = self._docker("compose", "version", check=False)
        self.composes = "docker compose" if self._plugin else "docker-compose"
        """What Compose is called: the plugin since 2, the program before."""
        self.bakes = self._docker("buildx", "version", check=False)
        """Whether buildx is here."""

    @classmethod
    @contextlib.contextmanager
    def start(cls, folder: Path) -> Iterator[Self | None]:
        """Start a daemon of our own, and end it."""
        daemon = shutil.which("dockerd")
        if daemon is None or os.geteuid() != 0:
            yield None
            return
        folder.mkdir(parents=True)
        socket = folder / "docker.sock"
        with (folder / "dockerd.log").open("wb") as log:
            # In a network namespace of its own: its bridge meets no other daemon's.
            process = subprocess.Popen(
                [
                    *("unshare", "--net", daemon),
                    f"--host=unix://{socket}",
                    f"--data-root={folder / 'data'}",
                    f"--exec-root={folder / 'exec'}",
                    f"--pidfile={folder / 'docker.pid'}",
                    "--iptables=false",
                    "--ip6tables=false",
                ],
                stdout=log,
                stderr=log,
            )
        made = cls(socket)
        try:
            made._wait(process, folder / "dockerd.log")
            yield made
        finally:
            process.terminate()
            process.wait()
            # Docker 28 leaves it mounted over itself.
            subprocess.run(["umount", folder / "data"], capture_output=True, check=False)

    def _wait(self, process: subprocess.Popen[bytes], log: Path) -> None:
        for _ in range(300):
            if process.poll() is None and self._docker("version", check=False):
                return
            time.sleep(0.1)
        sys.exit(log.read_text(encoding="utf-8", errors="replace"))

    def _docker(self, *arguments: str, check: bool = True, **options: object) -> bool:
        done = subprocess.run(  # type: ignore[call-overload]
            [self._client, *arguments],
            env=self._environ,
            capture_output=True,
            check=False,
            **options,
        )
        if check and done.returncode:
            sys.exit(f"docker {' '.join(arguments)}: {done.stderr.decode()}")
        return bool(done.returncode == 0)

    def load_roots(self, home: Path, file: Path, names: Sequence[str]) -> None:
        """Bring the very roots of the store into Docker."""
        found = roots(home, file, {*names, "gcc", "alpine-gcc"} - self._loaded - {"scratch"})
        for name, root in found.items():
            with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as tar:
                self._docker("import", "-", _tag(name), stdin=tar.stdout)
            self._loaded.add(name)

    def build_and_run(self, case: Case) -> None:
        """Build and run every variant, one by one."""
        for each in case.variants:
            self._docker(
                *("build", "-q", "-t", each.tag, "-f", "-", str(case.folder / each.program)),
                input=each.dockerfile.encode(),
            )
            self._run(each)

    def bake(self, case: Case) -> None:
        """Build all with Bake, then run all, as many at once as there are cores."""
        done = subprocess.run(
            [self._client, "buildx", "bake", "--file", case.bake_file],
            env=self._environ,
            cwd=case.bake_file.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise FailedError(done.stderr)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(self._run, case.variants))

    def _run(self, variant: _Variant) -> None:
        self._docker("run", "--rm", "--network=none", variant.tag, check=False)

    def compose(self, case: Case) -> None:
        """Build all and run all, as Compose does it."""
        parallel = () if self._plugin else ("--parallel",)
        self._compose(case, ("build", *parallel), ("up",))

    def compose_down(self, case: Case) -> None:
        """Remove what Compose left."""
        self._compose(case, ("down",))

    def _compose(self, case: Case, *commands: tuple[str, ...]) -> None:
        program = (self._client, "compose") if self._plugin else ("docker-compose",)
        for words in commands:
            done = subprocess.run(
                [*program, "--file", case.compose_file, *words],
                env=self._environ,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise FailedError(done.stderr)


def _tag(name: str) -> str:
    return name if name == "scratch" else f"bench/{name.replace(':', '-')}"
