"""Debug sessions on hand-made images, each in a process of its own that has the user's part."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Self, cast

from dockerbench import WAYS, open_docker
from handmade import SMOKE, Bench, open_engine
from nox_variants import cli, terminal
from nox_variants.model import Image, LinkMode
from samples import APT
from sandboxed import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from daemons import Service

EMBEDDED = "embedded"
EVERY = (EMBEDDED, *WAYS)

TOOLS = Image(name="busybox", sources=(APT,))


@dataclass(frozen=True)
class Debugging:
    """Starts sessions on one engine.

    Attributes:
        way: ``embedded``, or one of :data:`dockerbench.WAYS`.
        url: Where the daemon answers.
        home: The store.
        roots: The folder with the roots of images.
        source: The source folder of the project's program.
    """

    way: str
    url: str
    home: Path
    roots: Path
    source: Path

    def words(self, *command: str, run: str = "scratch", link: str = "static") -> list[str]:
        """Return the command line of a session; the program prints its environment, too."""
        fields = (self.way, self.url, self.home, self.roots, self.source, run, link)
        return [sys.executable, __file__, *map(str, fields), *command]

    def run(self, *command: str, stdin: str = "", **image: str) -> subprocess.CompletedProcess[str]:
        """Run a command without a terminal."""
        return subprocess.run(
            self.words(*command, **image),
            input=stdin,
            text=True,
            capture_output=True,
            check=False,
            env=environment(),
            timeout=PATIENCE,
        )

    def output(self, *command: str, **options: str) -> str:
        """Return what a command prints; it has to end well."""
        done = self.run(*command, **options)
        assert done.returncode == 0, done
        return done.stdout

    @contextmanager
    def popen(self, *command: str, **image: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start a command whose standard input stays open; it is not there any more at the end."""
        with subprocess.Popen(
            self.words(*command, **image),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def typed(self, **image: str) -> Typed:
        """Start a shell in a terminal."""
        return Typed(self.words(**image), environment())


def environment() -> dict[str, str]:
    """Return the environment of sessions."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TERM": "xterm"}


class Typed:
    """A process in a terminal, and who sits at it."""

    def __init__(self, words: list[str], environ: Mapping[str, str]) -> None:
        self.seen = ""
        self.terminal, other = pty.openpty()
        termios.tcsetwinsize(self.terminal, (50, 123))
        self.process = subprocess.Popen(
            words,
            stdin=other,
            stdout=other,
            stderr=other,
            env=environ,
            start_new_session=True,
        )
        self.other = other

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.other)
        os.close(self.terminal)

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.terminal, text.encode())

    def end(self) -> None:
        """Ask the process to end."""
        self.process.terminate()

    def is_sane(self) -> bool:
        """Tell whether the terminal echoes and edits lines."""
        modes = termios.tcgetattr(self.other)[3]
        return bool(modes & termios.ECHO and modes & termios.ICANON)

    def interrupt(self, text: str) -> None:
        """Press Ctrl-C until something is on the screen.

        One that comes between a shell's two commands may be lost, as it is for any user.
        """
        for _ in range(round(PATIENCE)):
            self.type("\x03")
            ready, _, _ = select.select([self.terminal], [], [], 1)
            while ready and text not in self.seen:
                self.seen += os.read(self.terminal, 65536).decode(errors="replace")
                ready, _, _ = select.select([self.terminal], [], [], 1)
            if text in self.seen:
                break
        self.expect(text)

    def expect(self, text: str) -> str:
        """Wait until something is on the screen, and return all that came up to it."""
        while text not in self.seen:
            ready, _, _ = select.select([self.terminal], [], [], PATIENCE)
            assert ready, f"{text!r} did not come: {self.seen!r}"
            self.seen += os.read(self.terminal, 65536).decode(errors="replace")
        before, found, self.seen = self.seen.partition(text)
        return before + found


def open_bench(way: str, url: str, home: Path, roots: Path, source: Path) -> Bench:
    """Return an engine with images by hand, busybox among them."""
    known = {folder.name: folder for folder in roots.iterdir()}
    known["busybox"] = known["alpine"]
    if way == EMBEDDED:
        return Bench(open_engine(home, known, source.parent), source)
    service = cast("Service", SimpleNamespace(url=url))
    return open_docker(way, service, home=home, roots=known, source=source)


def session(words: list[str]) -> int:
    """Run a session, as the command does when all is opened."""
    way, url, home, roots, source, run, link, *command = words
    bench = open_bench(way, url, Path(home), Path(roots), Path(source))
    plan = bench.plan(
        run=run,
        link=LinkMode(link),
        smoke=replace(SMOKE, env=(("NAME", "a b"),)),
        run_env=(("FROM", "image"),),
    )
    kind = "xterm" if not command and terminal.is_terminal() else ""
    with terminal.ending(), closing(bench.engine) as engine:
        engine.probe()
        tools = engine.prepare(TOOLS)
        return engine.debug(bench.image(plan), plan.smoke, tools, tuple(command), terminal=kind)


if __name__ == "__main__":
    # What runs in the background of a shell ignores SIGINT, and so would what it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Errors and Ctrl-C end as in the command.
    cli._parser = lambda: SimpleNamespace(  # type: ignore[assignment,return-value]
        parse_args=lambda words, _: SimpleNamespace(run=lambda _: session(words))
    )
    sys.exit(cli.main(sys.argv[1:]))
