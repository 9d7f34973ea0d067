"""How a program would start in an image: what the kernel executes, what its loader finds.

Only the image's root is looked at, and nothing is run.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from nox_variants import elf, loading, rootfs
from nox_variants.results import ImageFacts, Linkage, Startup, Step

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nox_variants.model import Pairs
    from nox_variants.results import FileFacts
    from nox_variants.rootfs import Found, Root

MOST_SCRIPTS = 5
"""Scripts that may be each other's interpreters (Linux, fs/exec.c: `exec_binprm`)."""

_MOST_ENVS = 4
_ENV_OPTION = re.compile(r"(?:-S|--split-string=|-vS)\s*(.*)", re.DOTALL)
_ENV_WITH_VALUE = {"-u", "-C", "--unset", "--chdir"}


def read(lower: tuple[Path, ...], argv: tuple[str, ...], env: Pairs, workdir: str = "/") -> Startup:
    """Return what kernel and loader find when a command is executed.

    Args:
        lower: The folders of the root, base first.
        argv: The command.
        env: Its environment.
        workdir: Where it is executed.
    """
    return start(rootfs.Root(lower), argv, env, workdir)


def start(root: Root, argv: tuple[str, ...], env: Pairs, workdir: str) -> Startup:
    """Return what :func:`read` does, of a root that may be known in part."""
    return _Kernel(root, env, workdir).execute(argv)


def image_facts(
    lower: tuple[Path, ...], argv: tuple[str, ...], env: Pairs, workdir: str
) -> ImageFacts:
    """Return what is known of an image without running it; see :func:`read`."""
    root = rootfs.Root(lower)
    path = dict(env).get("PATH", rootfs.PATH)
    return ImageFacts(
        root=rootfs.facts(root, path), startup=_Kernel(root, env, workdir).execute(argv)
    )


def uses_nss(startup: Startup) -> bool:
    """Tell whether what runs may ask glibc's name service switch."""
    return any(name in elf.NSS_FUNCTIONS or name == elf.NSS for name in startup.imports)


class _Kernel:
    """Executes files as Linux does, as far as their first bytes go (fs/exec.c)."""

    def __init__(self, root: Root, env: Pairs, workdir: str) -> None:
        self._root = root
        self._env = env
        self._workdir = workdir.rstrip("/")
        self._path = dict(env).get("PATH", rootfs.PATH)

    def execute(self, argv: tuple[str, ...]) -> Startup:
        """Return the way from a command to what runs, and what that one's loader finds."""
        if not argv:
            return Startup(steps=())
        return self._startup(tuple(self._steps(self._named(argv[0]))))

    def _startup(self, steps: tuple[tuple[Step, Found | None], ...]) -> Startup:
        last, found = steps[-1]
        facts = last.facts
        only = tuple(step for step, _ in steps)
        if facts is None or found is None or not facts.interpreter or _is_script(facts):
            return Startup(steps=only, imports=facts.imports if facts else ())
        loader, at = self._step(facts.interpreter)
        if at is None or not loader.executable:
            return Startup(steps=only, loader=loader, imports=facts.imports)
        program = loading.Program(
            path=last.path, found=found, facts=facts, env=self._env, workdir=self._workdir or "/"
        )
        loaded = loading.load(self._root, program, at)
        return Startup(
            steps=only,
            loader=loader,
            libraries=loaded.libraries,
            imports=loaded.imports,
            truncated=loaded.truncated,
        )

    def _steps(self, path: str) -> Iterator[tuple[Step, Found | None]]:
        """Yield the files that are executed, one for another."""
        for _ in range(_MOST_ENVS):
            way = list(self._scripts(path))
            yield from way
            name = _name_for_env([step for step, _ in way])
            if not name or not _starts(self._startup(tuple(way))):
                return
            path = self._named(name)

    def _scripts(self, path: str) -> Iterator[tuple[Step, Found | None]]:
        """Yield what the kernel opens for one call of execve(2)."""
        for _ in range(MOST_SCRIPTS + 1):
            step, found = self._step(path)
            yield step, found
            if step.facts is None or not step.executable or not _is_script(step.facts):
                return
            path = step.facts.interpreter
            if not path:
                return

    def _step(self, path: str) -> tuple[Step, Found | None]:
        found = self._root.find(path if path.startswith("/") else f"{self._workdir}/{path}")
        if found is None:
            return Step(path=path), None
        return Step(path=path, facts=self._root.facts(found), executable=found.executable), found

    def _named(self, name: str) -> str:
        """Return the path that a command's name stands for; the name itself where it is none."""
        if "/" in name:
            return name if name.startswith("/") else f"{self._workdir}/{name.removeprefix('./')}"
        there = ""
        for folder in self._path.split(":") if name and self._path else ():
            at = folder if folder.startswith("/") else f"{self._workdir}/{folder}"
            path = f"{at.rstrip('/')}/{name}"
            found = self._root.find(path)
            if found and found.executable:
                return path
            there = there or (path if found and found.regular else "")
        return there or name


def _starts(startup: Startup) -> bool:
    """Tell whether a program gets its loader, and that all that it looks for."""
    loader = startup.loader is None or startup.loader.executable
    return loader and all(each.path and not each.undefined for each in startup.libraries)


def _is_script(facts: FileFacts) -> bool:
    return facts.linkage is Linkage.SCRIPT


def _name_for_env(steps: list[Step]) -> str:
    """Return the name that `env` looks for when it is a script's interpreter (env(1)).

    Empty for any other interpreter, and where `env` finds nothing to do but that script again.
    """
    *scripts, last = steps
    script = scripts[-1].facts if scripts else None
    if script is None or not last.executable or last.path.rpartition("/")[2] != "env":
        return ""
    split = _ENV_OPTION.fullmatch(script.argument)
    words = iter(split[1].split() if split else [script.argument])
    for word in words:
        if word in _ENV_WITH_VALUE:
            next(words, "")
        elif not word.startswith("-") and "=" not in word:
            return word
    return ""
