"""A stand-in for the docker client: keeps what it was asked, and answers as buildx does."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_SCRIPT = '''#!{python} -ES
import json, os, shutil, subprocess, sys, time

said = json.loads({said!r})
arguments = sys.argv[1:]


def value(name):
    """Return what follows an option; nothing when it is not there."""
    return arguments[arguments.index(name) + 1] if name in arguments else ""


def answer():
    """Do what is asked; returns standard output, or an error's words."""
    if arguments[0] == "buildx" and not said["buildx"]:
        return "", "docker: 'buildx' is not a docker command."
    if arguments[:2] == ["buildx", "version"]:
        return "github.com/docker/buildx", ""
    if arguments[:2] == ["buildx", "inspect"]:
        name = (arguments[2:] or ["default"])[0]
        if name not in ("default", said["builder"]):
            return "", 'ERROR: no builder "%s" found' % name
        return "Name:   %s\\nDriver: %s\\n\\nNodes:\\n" % (name, said["driver"]), ""
    time.sleep(said["slow"])
    way = "buildx build" if arguments[0] == "buildx" else "build"
    if way not in said["builds"]:
        return "", "ERROR: context deadline exceeded"
    if "--output" in arguments:
        folder = value("--output").partition("dest=")[2].rstrip('"')
        shutil.copyfile(said["artifact"], folder + "/0")
    elif said["real"] and "--tag" in arguments:
        imported()
    return said["log"] or "sha256:made", ""


def imported():
    """Give the daemon an image that is like what was to be built: a program alone."""
    pairs = zip(arguments, arguments[1:])
    changes = ["LABEL %s" % value for option, value in pairs if option == "--label"]
    changes += [line for line in given.splitlines() if line.startswith(("CMD", "LABEL"))]
    words = [part for each in changes for part in ("--change", each)]
    artifact = said["artifact"]
    tar = ["tar", "-C", os.path.dirname(artifact), "--transform", "s,.*,hello-c,", "-c"]
    with subprocess.Popen([*tar, os.path.basename(artifact)], stdout=subprocess.PIPE) as packed:
        load = [said["real"], "import", *words, "-", value("--tag")]
        subprocess.run(load, stdin=packed.stdout, stdout=subprocess.DEVNULL, check=True)


given = open(value("--file")).read() if os.path.isfile(value("--file")) else ""
call = {{"client": sys.argv[0], "words": arguments, "dockerfile": given}}
with open({log!r}, "a") as log:
    log.write(json.dumps(call) + "\\n")
out, error = answer()
print(out, end="")
print(error, end="", file=sys.stderr)
sys.exit(1 if error else 0)
'''


@dataclass(frozen=True)
class Call:
    """What a client was asked.

    Attributes:
        client: Its path.
        words: Its arguments.
        dockerfile: The Dockerfile that they name.
    """

    client: str
    words: tuple[str, ...]
    dockerfile: str

    def values(self, option: str) -> tuple[str, ...]:
        """Return what follows each of an option."""
        at = [number for number, word in enumerate(self.words) if word == option]
        return tuple(self.words[number + 1] for number in at)


@dataclass(frozen=True)
class Recording:
    """Clients that keep what they are asked in one file.

    Attributes:
        log: The file.
    """

    log: Path

    def client(self, folder: Path, **changes: Any) -> Path:
        """Write a client into a folder for PATH.

        Args:
            folder: The folder, made where it is not there.
            changes: ``buildx``: whether it has the plugin; ``builds``: the ways in which it can
                build; ``builder`` and ``driver``: what it knows besides the default one; ``log``:
                what a build prints; ``slow``: the seconds that it takes; ``artifact``: what it
                makes; ``real``: the client that puts images into the daemon.
        """
        said = {
            "buildx": True,
            "builds": ["buildx build", "build"],
            "builder": "far",
            "driver": "remote",
            "log": "",
            "slow": 0,
            "artifact": "",
            "real": "",
            **changes,
        }
        folder.mkdir(parents=True, exist_ok=True)
        text = _SCRIPT.format(python=sys.executable, said=json.dumps(said), log=str(self.log))
        (folder / "docker").write_text(text, encoding="utf-8")
        (folder / "docker").chmod(0o755)
        return folder

    @property
    def calls(self) -> list[Call]:
        """What was asked so far."""
        if not self.log.exists():
            return []
        lines = map(json.loads, self.log.read_text(encoding="utf-8").splitlines())
        return [Call(each["client"], tuple(each["words"]), each["dockerfile"]) for each in lines]

    def builds(self) -> list[Call]:
        """What was built so far, without the images of nothing that only try whether it works."""
        return [each for each in self.calls if "--progress" in each.words]
