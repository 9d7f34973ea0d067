"""What is judged: a variant's image and what is asked of it, and the words to say it in. Pure.

What a program prints, and the names in an image, are untrusted: they are quoted, escaped and
shortened before they get into a sentence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nox_variants.model import Cause, Verdict
from nox_variants.results import Finding

if TYPE_CHECKING:
    from nox_variants.model import Smoke
    from nox_variants.results import FileFacts, ImageFacts, Observation, RootFacts

SEARCHED = 65536
"""Characters of a program's output that are looked at."""

QUOTED = 60
"""Characters of a text that are quoted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A variant's image and what is asked of it: all that is known before it runs.

    Attributes:
        facts: How its command would start, and what its root has.
        artifact: What the built file says about itself.
        smoke: What is asked of it, and the limits.
        machine: The machine that runs it, in ``uname -m`` words.
        run_image: The run image's name, for sentences.
        cmd: What it starts: entry point and command.
        user: Who runs it; empty for root.
    """

    facts: ImageFacts
    artifact: FileFacts
    smoke: Smoke
    machine: str
    run_image: str
    cmd: tuple[str, ...]
    user: str = ""

    @property
    def root(self) -> RootFacts:
        """What its root has."""
        return self.facts.root

    @property
    def image(self) -> str:
        """The run image in words: ``alpine (musl)``."""
        libc = self.root.libc.partition(" ")[0]
        return f"{self.run_image} ({plain(libc)})" if libc else self.run_image


def program_of(subject: Subject) -> FileFacts | None:
    """Return what really runs: the command's own file, or the last of its interpreters."""
    steps = subject.facts.startup.steps
    return steps[-1].facts if steps else None


def quote(text: str) -> str:
    """Return untrusted text in quotes, shortened, with control characters escaped."""
    return repr(text) if len(text) <= QUOTED else f"{text[:QUOTED]!r}..."


def plain(name: str) -> str:
    """Return an untrusted name as it is where that is safe, else in quotes."""
    return name if name.isprintable() and len(name) <= 255 else quote(name)  # noqa: PLR2004  # NAME_MAX


def last_words(seen: Observation) -> str:
    """Return what a program said last, to be appended to a sentence."""
    lines = seen.stderr[-SEARCHED:].strip().splitlines()
    return f"; the last line of standard error is {quote(lines[-1])}" if lines else ""


def fails(cause: Cause, explanation: str) -> Finding:
    """Return the finding of a failure."""
    return Finding(verdict=Verdict.FAILS, cause=cause, explanation=explanation)
