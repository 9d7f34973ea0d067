"""What benchmarks find: figures, as lines for a terminal and as a page of the documentation."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import nox_variants

HEADING = "## "
_VERSIONS = {
    "dockerd": ["dockerd", "--version"],
    "docker-compose": ["docker-compose", "version", "--short"],
    "docker compose": ["docker", "compose", "version", "--short"],
    "buildx": ["docker", "buildx", "version"],
}
COLUMNS = ("", "nox-variants", "against", "ratio", "promised")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure.

    Attributes:
        what: What was measured.
        ours: What it came to.
        against: What it is held against, with its name.
        ratio: The one by the other.
        promised: What the ratio, or the figure, has to be.
    """

    what: str
    ours: str
    against: str = ""
    ratio: str = ""
    promised: str = ""

    def __str__(self) -> str:
        against = f"  against {self.against}" if self.against else ""
        ratio = f": {self.ratio}" if self.ratio else ""
        promised = f" ({self.promised})" if self.promised else ""
        return f"{self.what:<36} {self.ours}{against}{ratio}{promised}"

    @property
    def row(self) -> str:
        """The figure as a row of a Markdown table."""
        return _row((self.what, self.ours, self.against, self.ratio, self.promised))


@dataclass(slots=True, kw_only=True)
class Section:
    """The figures of one part.

    Attributes:
        title: The first line of what the part's function says of itself.
        text: The rest of it.
        figures: What it found.
    """

    title: str
    text: str
    figures: list[Figure] = field(default_factory=list)


def page(sections: list[Section], head: str) -> str:
    """Return the page of the documentation.

    Args:
        sections: What was found.
        head: What stands above it.
    """
    lines = [head.rstrip(), "", machine(), ""]
    for each in sections:
        lines += [f"{HEADING}{each.title.rstrip('.')}", ""]
        lines += [each.text, ""] if each.text else []
        lines += [_row(COLUMNS), "|---|---|---|---|---|", *(figure.row for figure in each.figures)]
        lines.append("")
    return "\n".join(lines)


def replaced(old: str, new: str) -> str:
    """Return a page with those sections that another one has, too, taken from that."""
    head, *sections = old.split(HEADING)
    made = {_title(each): each for each in new.split(HEADING)[1:]}
    kept = (made.get(_title(each), each).rstrip() for each in sections)
    return f"\n\n{HEADING}".join((head.rstrip(), *kept)) + "\n"


def _title(section: str) -> str:
    return section.partition("\n")[0]


def machine() -> str:
    """Return a sentence about what the figures were measured on, without names of machines."""
    cpu = next(
        line.partition(": ")[2]
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        if line.startswith("model name")
    )
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1024**3
    tools = [f"Python {platform.python_version()}", f"Linux {platform.release().partition('-')[0]}"]
    for name, command in _VERSIONS.items():
        said = _said(command)
        if said:
            tools.append(f"{name} {next(each for each in said if each.lstrip('v')[:1].isdigit())}")
    return (
        f"Measured {datetime.now(UTC):%Y-%m-%d} with nox-variants {nox_variants.__version__} on"
        f" {len(os.sched_getaffinity(0))} cores of {cpu.strip()}, {pages:.0f} GiB of memory,"
        f" {', '.join(tools)}."
    )


def _said(command: list[str]) -> list[str]:
    """Return the words of a command; none where it is not here."""
    if shutil.which(command[0]) is None:
        return []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [] if done.returncode else done.stdout.replace(",", " ").split()


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
