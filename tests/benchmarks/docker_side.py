"""The other side of the comparison: a private Docker daemon, one Dockerfile per variant."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from standins import roots

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

    def build_and_run(self, folder: Path, programs: Sequence[str], runs: Sequence[str]) -> None:
        """Build and run every variant, one by one."""
        for program in programs:
            for link, (build, command) in COMMANDS.items():
                for run in runs:
                    tag = f"bench-{program}:{link}.{run.replace(':', '_')}"
                    text = DOCKERFILE.format(build=_tag(build), run=_tag(run), command=command)
                    self._docker(
                        "build",
                        "-q",
                        "-t",
                        tag,
                        "-f",
                        "-",
                        str(folder / program),
                        input=text.encode(),
                    )
                    self._docker("run", "--rm", "--network=none", tag, check=False)

    def write_compose(self, folder: Path, programs: Sequence[str], runs: Sequence[str]) -> Path:
        """Write what docker-compose takes: a service and a Dockerfile per variant."""
        work = folder / "compose"
        services = {}
        for program in programs:
            shutil.copytree(folder / program, work / program)
            for link, (build, command) in COMMANDS.items():
                for run in runs:
                    name = f"{program}-{link}-{run.replace(':', '_')}"
                    text = DOCKERFILE.format(build=_tag(build), run=_tag(run), command=command)
                    (work / program / f"Dockerfile.{name}").write_text(text, encoding="utf-8")
                    services[name] = {
                        "build": {"context": program, "dockerfile": f"Dockerfile.{name}"},
                        "network_mode": "none",
                    }
        file = work / "docker-compose.yml"
        values = {"version": "3.4", "services": services}
        file.write_text(json.dumps(values), encoding="utf-8")
        return file

    def compose(self, file: Path) -> None:
        """Build all and run all, as docker-compose does it."""
        self._compose(file, ("build", "--parallel"), ("up",))

    def compose_down(self, file: Path) -> None:
        """Remove what docker-compose left."""
        self._compose(file, ("down",))

    def _compose(self, file: Path, *commands: tuple[str, ...]) -> None:
        for words in commands:
            done = subprocess.run(
                ["docker-compose", "--file", file, *words],
                env=self._environ,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                sys.exit(f"docker-compose {words[0]}: {done.stderr}")


def _tag(name: str) -> str:
    return name if name == "scratch" else f"bench/{name.replace(':', '-')}"
