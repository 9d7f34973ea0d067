"""YAML to settings: reads the file and the catalogue, finds every mistake, says where and what.

With :mod:`nox_variants.conversion`, it alone knows both the form of the files and the values that
the rest works with.
"""

from __future__ import annotations

import posixpath
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from pydantic import ValidationError

from nox_variants import conversion, filemodel, filevalues, inheritance, matrix, mistakes, yamlfile
from nox_variants.errors import ConfigError
from nox_variants.model import (
    Budget,
    Cause,
    Expectation,
    Image,
    ImageSource,
    Inclusion,
    Language,
    Libs,
    LinkMode,
    Need,
    Problem,
    Program,
    Selector,
    Settings,
    SourceKind,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pydantic_core import ErrorDetails

    from nox_variants.model import Location, Mirror
    from nox_variants.registrycache import RegistryCache
    from nox_variants.yamlfile import Document, Keys

_SCRATCH = Image(name="scratch", sources=(ImageSource(kind=SourceKind.SCRATCH),))

_PORTS = {Need.CERTIFICATES: 443, Need.NAMES: 53}
"""TCP ports of the run's own servers (:mod:`nox_variants.sandbox.fixtures`)."""

_MEND = {"mirrors": "Leave it in one of the files."}
"""What to do about what two files say differently, where it has no name of the user's own."""

_T = TypeVar("_T")


def load(*files: Path) -> Settings:
    """Return what files say.

    Args:
        files: The files; the folder of each is the root of its sources and archives.

    Raises:
        ConfigError: With every mistake of every file.
    """
    documents = [yamlfile.read(file) for file in files]
    unread = [problem for each in documents if each.value is None for problem in each.problems]
    if unread:
        raise ConfigError(tuple(map(str, unread)))
    shipped = catalogue()
    project = _Project(
        [_Reading(*each, shipped) for each in zip(files, documents, strict=True)],
        filemodel.File.model_validate({"version": 1, **shipped}),
    )
    settings = project.settings()
    if project.problems:
        order = {str(file): at for at, file in reversed([*enumerate(files)])}
        ordered = sorted(
            project.problems,
            key=lambda each: (order[each.location.file], each.location.line, each.location.column),
        )
        raise ConfigError(tuple(dict.fromkeys(map(str, ordered))))
    return settings


def catalogue() -> dict[str, dict[str, Any]]:
    """Return what the package ships, as the file would say it: `images` and `languages`."""
    folder = resources.files("nox_variants") / "catalogue"
    return {
        name: yaml.load((folder / f"{name}.yaml").read_text("utf-8"), Loader=yamlfile.LOADER)  # noqa: S506  # a safe loader
        for name in ("images", "languages")
    }


def shipped_images() -> tuple[Image, ...]:
    """Return the images that the package ships, for where there is no file."""
    images = catalogue()["images"].items()
    read = (
        conversion.image(name, filemodel.ImageForm.model_validate(form)) for name, form in images
    )
    return (_SCRATCH, *read)


class _Project:
    """The files of one project, read together.

    Args:
        readings: One per file.
        shipped: The catalogue.

    Attributes:
        problems: What is wrong with them.
    """

    def __init__(self, readings: Sequence[_Reading], shipped: filemodel.File) -> None:
        self._readings = readings
        self._shipped = shipped
        self.problems: list[Problem] = []

    def settings(self) -> Settings:
        """Return the settings; worth nothing when there are problems."""
        readings = self._readings
        own_images, own_languages = self._names("images"), self._names("languages")
        known = filevalues.Known(
            images=own_images | {_SCRATCH.name, *self._shipped.images},
            languages=own_languages | {*self._shipped.languages},
        )
        for each in readings:
            each.check(known)
        roots = tuple(each.root for each in readings)
        root = Path(posixpath.commonpath(roots))
        images = {name: conversion.image(name, form) for name, form in self._shipped.images.items()}
        images |= self._joined("images", [each.images(root) for each in readings])
        languages = conversion.languages(self._shipped, without=own_languages)
        languages |= self._joined("languages", [each.languages() for each in readings])
        self._joined("programs", [dict.fromkeys(each.names("programs"), each) for each in readings])
        if all(each.has_no_programs for each in readings):
            readings[0].report((), "key 'programs' is missing.")
        programs = tuple(program for each in readings for program in each.programs(languages))
        cache = self._only("cache", [each.cache() for each in readings])
        mirrors = self._joined("mirrors", [each.mirrors() for each in readings])
        self.problems += [problem for each in readings for problem in each.problems]
        if self.problems:  # expansion finds the rest, but for what this very call reported
            self.problems += self._rules(programs)
        return Settings(
            root=root,
            roots=roots,
            programs=programs,
            images=(_SCRATCH, *images.values()),
            cache=cache,
            mirrors=tuple(mirrors.items()),
        )

    def _names(self, section: str) -> frozenset[str]:
        return frozenset(name for each in self._readings for name in each.names(section))

    def _joined(self, section: str, parts: list[dict[str, _T]]) -> dict[str, _T]:
        """Return the entries of all files; report those that two files say differently."""
        joined: dict[str, _T] = {}
        places: dict[str, Location] = {}
        for reading, entries in zip(self._readings, parts, strict=True):
            for name, entry in entries.items():
                place = reading.location((section, name), key=True)
                first = places.setdefault(name, place)
                if joined.setdefault(name, entry) != entry:
                    todo = _MEND.get(section, "Rename one, or remove it.")
                    text = f"{name!r} is something else in {first}. {todo}"
                    self.problems.append(Problem(place, text))
        return joined

    def _only(self, key: str, values: Sequence[_T | None]) -> _T | None:
        """Return what one file says, or several say alike; report what they say differently."""
        found: tuple[_T, Location] | None = None
        for reading, value in zip(self._readings, values, strict=True):
            if value is None:
                continue
            place = reading.location((key,), key=True)
            found = found or (value, place)
            if value != found[0]:
                text = f"is something else in {found[1]}. Leave it in one of the files."
                self.problems.append(Problem(place, text))
        return found[0] if found else None

    def _rules(self, programs: tuple[Program, ...]) -> Iterable[Problem]:
        """Return what is wrong with the rules of those programs that can be expanded."""
        sound = [each for each in programs if _has_recipes(each)]
        found = matrix.check(sound)
        if len(sound) == sum(len(each.names("programs")) for each in self._readings):
            return found
        # A rule of the defaults may be about one of the others.
        return [each for each in found if not each.location.path.startswith("defaults.")]


def _has_recipes(program: Program) -> bool:
    links = {*program.link, *(each.link for each in program.include)}
    return all(program.language.recipe(link) for link in links)


class _Reading:
    """One reading of one file.

    Args:
        file: The file.
        document: What it holds.
        shipped: The catalogue.

    Attributes:
        problems: What is wrong with it.
        root: Its folder, resolved.
    """

    def __init__(self, file: Path, document: Document, shipped: dict[str, dict[str, Any]]) -> None:
        self._document = document
        self._value, self._origins = inheritance.filled(document.value, shipped)
        self._incomplete: set[str] = set()
        self._form = filemodel.File.model_construct(version=1)
        self.problems = list(document.problems)
        self.root = file.parent.resolve()

    @property
    def has_no_programs(self) -> bool:
        """Whether the file is but for others: images and languages."""
        return isinstance(self._value, dict) and "programs" not in self._value

    def names(self, section: str) -> tuple[str, ...]:
        """Return the names that a section gives, right or wrong."""
        entries = self._value.get(section) if isinstance(self._value, dict) else None
        return tuple(entries) if isinstance(entries, dict) else ()

    def location(self, keys: Keys, *, key: bool = False) -> Location:
        """Return where a value stands: it may come from `defaults`."""
        written = inheritance.origin(_as_written(self._value, keys), self._origins)
        return self._document.location(written, key=key)

    def report(self, keys: Keys, text: str) -> None:
        """Add a problem of a value."""
        self.problems.append(Problem(self.location(keys), text))

    # --- form ------------------------------------------------------------------------------------

    def check(self, known: filevalues.Known) -> None:
        """Check the form; what is right of it is used when something is wrong."""
        self._complete()
        try:
            self._form = filemodel.File.model_validate(self._value, context=known)
        except ValidationError as error:
            details = error.errors(include_url=False)
        else:
            return
        self.problems += [self._problem(detail) for detail in details]
        sound = _sound(self._value, {detail["loc"][:2] for detail in details})
        self._form = filemodel.File.model_validate(sound, context=known)

    def _complete(self) -> None:
        """Report the keys that a program lacks: those of its form may all be in `defaults`."""
        for name in self.names("programs"):
            program = self._value["programs"][name]
            if not isinstance(program, dict):
                continue
            for key in filemodel.REQUIRED:
                if key not in program:
                    self._incomplete.add(name)
                    self.report(("programs", name), f"key {key!r} is missing.")

    def _problem(self, detail: ErrorDetails) -> Problem:
        keys, kind = detail["loc"], detail["type"]
        if keys and keys[-1] == "[key]":
            return Problem(self.location(keys[:-1], key=True), mistakes.said(detail))
        if kind == "extra_forbidden":
            return Problem(self.location(keys, key=True), mistakes.unknown_key(keys))
        if kind == "missing":
            return Problem(self.location(keys[:-1]), f"key {keys[-1]!r} is missing.")
        return Problem(self.location(keys), mistakes.said(detail))

    # --- images and languages ------------------------------------------------------------------

    def images(self, project: Path) -> dict[str, Image]:
        """Return the file's images, their archives relative to the project's folder."""
        folder, images = self.root.relative_to(project).as_posix(), {}
        for name, each in self._form.images.items():
            if not (each.registry or each.apt or each.archive):
                self.report(("images", name), "has no source. Give it registry, apt or archive.")
            images[name] = conversion.image(name, each, folder)
        return images

    def languages(self) -> dict[str, Language]:
        """Return the file's languages."""
        for name, each in self._form.languages.items():
            if each.artifact is None or not each.link:
                what = "artifact" if each.artifact is None else "link"
                self.report(("languages", name), f"key {what!r} is missing.")
        return conversion.languages(self._form)

    def cache(self) -> RegistryCache | None:
        """Return where builds keep their layers, as the file has it."""
        return conversion.cache(self._form.cache) if self._form.cache else None

    def mirrors(self) -> dict[str, tuple[Mirror, ...]]:
        """Return the file's mirrors, by registry."""
        return conversion.mirrors(self._form)

    # --- programs ------------------------------------------------------------------------------

    def programs(self, languages: dict[str, Language]) -> tuple[Program, ...]:
        """Return the file's programs, but for those whose language is not sound."""
        return tuple(
            self._program(name, each, languages[each.language])
            for name, each in self._form.programs.items()
            if each.language in languages and name not in self._incomplete
        )

    def _program(self, name: str, form: filemodel.ProgramForm, language: Language) -> Program:
        keys: Keys = ("programs", name)
        self._check_links(keys, form, language)
        self._check_port(keys, form.smoke)
        self._check_build(keys, form, language)
        self._check_libs(keys, form, language)
        self._check_files(keys, form, language)
        self._check_budgets(keys, form)
        return Program(
            name=name,
            language=language,
            source=self.root / form.source.replace("{program}", name),
            run=tuple(form.run),
            link=tuple(form.link),
            build=tuple(form.build) if form.build else None,
            libs=tuple(map(Libs, form.libs)),
            cmd=tuple(form.cmd) if isinstance(form.cmd, list) else form.cmd,
            options=conversion.options(form),
            include=tuple(
                Inclusion(
                    run=each.run,
                    link=LinkMode(each.link),
                    build=each.build,
                    libs=Libs(each.libs),
                    location=self.location((*keys, "include", at)),
                )
                for at, each in enumerate(form.include)
            ),
            exclude=tuple(
                self._selector(each, (*keys, "exclude", at)) for at, each in enumerate(form.exclude)
            ),
            expect=tuple(
                Expectation(
                    selector=self._selector(each, (*keys, "expect", at)),
                    verdict=Verdict(each.verdict),
                    cause=Cause(each.cause) if each.cause else None,
                )
                for at, each in enumerate(form.expect)
            ),
            budgets=tuple(
                Budget(
                    selector=self._selector(each.where, (*keys, "budget", at, "where")),
                    limits=conversion.limits(each),
                )
                for at, each in enumerate(form.budget)
            ),
            smoke=conversion.smoke(form.smoke),
            network=form.network == "default",
            location=self.location(keys, key=True),
        )

    def _check_links(self, keys: Keys, form: filemodel.ProgramForm, language: Language) -> None:
        asked: list[tuple[Keys, LinkMode]] = [
            ((*keys, "link", at), link) for at, link in enumerate(form.link)
        ]
        asked += [
            ((*keys, "include", at, "link"), LinkMode(each.link))
            for at, each in enumerate(form.include)
        ]
        for where, link in asked:
            if language.recipe(link) is None:
                has = ", ".join(recipe.link for recipe in language.recipes)
                why = language.only_dynamic or f"It has {has}."
                text = f"language {language.name!r} has no link mode {str(link)!r}. {why}"
                self.report(where, text)

    def _check_port(self, keys: Keys, form: filemodel.SmokeForm) -> None:
        port = form.service.port if form.service else 0
        for need in form.needs:
            if _PORTS.get(Need(need)) == port:
                text = f"{port} is taken by what answers {str(need)!r} in a smoke run. Use another."
                self.report((*keys, "smoke", "service", "port"), text)

    def _check_build(self, keys: Keys, form: filemodel.ProgramForm, language: Language) -> None:
        recipes = language.recipes
        if form.flags and not all("{flags}" in "".join(each.commands) for each in recipes):
            text = f"language {language.name!r} takes none: its commands have no {{flags}}."
            self.report((*keys, "flags"), text)
        if form.strip and not language.strip:
            text = f"language {language.name!r} has nothing to strip. Leave it out."
            self.report((*keys, "strip"), text)

    def _check_libs(self, keys: Keys, form: filemodel.ProgramForm, language: Language) -> None:
        asked: list[tuple[Keys, str]] = [((*keys, "libs"), libs) for libs in form.libs]
        asked += [
            ((*keys, "include", at, "libs"), each.libs) for at, each in enumerate(form.include)
        ]
        for where, libs in asked:
            if libs == Libs.BUNDLE and language.cmd:
                text = (
                    f"language {language.name!r} has no libraries to bring: {language.cmd[0]} does."
                )
                self.report(where, text)

    def _check_files(self, keys: Keys, form: filemodel.ProgramForm, language: Language) -> None:
        built = form.artifacts or [language.artifact.replace("{program}", str(keys[1]))]
        taken = {f"/{posixpath.basename(path)}": path for path in reversed(built)}
        for at, path in enumerate(form.artifacts or ()):
            if taken[f"/{posixpath.basename(path)}"] != path:
                text = f"its place in the image, /{posixpath.basename(path)}, is another's."
                self.report((*keys, "artifacts", at), text)
        for at, each in enumerate(form.files):
            target = each.to or each.build or ""
            if target in taken:
                self.report((*keys, "files", at), f"{target} is the place of {taken[target]}.")
            taken[target] = each.source or each.build or ""

    def _check_budgets(self, keys: Keys, form: filemodel.ProgramForm) -> None:
        for at, each in enumerate(form.budget):
            if each.memory and form.smoke.repeat == 1:
                text = "is measured where smoke.repeat is 2 or more. Set that, or leave it out."
                self.report((*keys, "budget", at, "memory"), text)

    def _selector(self, form: filemodel.SelectorForm, keys: Keys) -> Selector:
        return Selector(
            run=_tuple(form.run),
            link=_tuple(form.link),
            build=_tuple(form.build),
            location=self.location(keys),
        )


def _as_written(value: Any, keys: Keys) -> Keys:
    """Return the way to a value in the file: what may be a list may be written as its one entry."""
    written: list[str | int] = []
    for key in keys:
        if key == 0 and isinstance(value, dict):
            continue
        written.append(key)
        try:
            value = value[key]
        except (LookupError, TypeError):
            value = None
    return tuple(written)


def _sound(value: Any, broken: set[Keys]) -> dict[str, Any]:
    """Return those entries of a file that have no mistakes."""
    sound: dict[str, Any] = {"version": 1}
    for section in ("programs", "images", "languages"):
        entries = value.get(section) if isinstance(value, dict) else None
        if isinstance(entries, dict):
            left = {name: each for name, each in entries.items() if (section, name) not in broken}
            sound |= {section: left} if left else {}
    for key in ("cache", "mirrors"):
        if isinstance(value, dict) and key in value and all(each[:1] != (key,) for each in broken):
            sound[key] = value[key]
    return sound


def _tuple(globs: list[str] | None) -> tuple[str, ...] | None:
    return None if globs is None else tuple(globs)
