"""YAML to settings: reads the file and the catalogue, finds every mistake, says where and what.

The only module that knows both the form of the file and the values that the rest works with.
"""

from __future__ import annotations

import posixpath
from importlib import resources
from typing import TYPE_CHECKING, Any, get_args, get_origin

import yaml
from pydantic import ValidationError

from nox_variants import filemodel, filevalues, matrix, yamlfile
from nox_variants.errors import ConfigError, did_you_mean
from nox_variants.model import (
    Cause,
    CopiedFile,
    Expectation,
    Image,
    ImageSource,
    Inclusion,
    Language,
    Libs,
    LinkMode,
    Need,
    Options,
    Problem,
    Program,
    Recipe,
    Selector,
    Service,
    Settings,
    Smoke,
    SourceKind,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pydantic_core import ErrorDetails

    from nox_variants.yamlfile import Document, Keys

PLANNED = {"budget"}
"""Keys that later versions will know: refused, so that nobody counts on them."""

_SCRATCH = Image(name="scratch", sources=(ImageSource(kind=SourceKind.SCRATCH),))

_PORTS = {Need.CERTIFICATES: 443, Need.NAMES: 53}
"""TCP ports of the run's own servers (:mod:`nox_variants.sandbox.fixtures`)."""

_KINDS = {
    dict: "a mapping",
    list: "a list",
    str: "text",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "nothing",
}
_WANTED = {
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "int_type": "a whole number",
    "bool_type": "true or false",
}


def load(file: Path) -> Settings:
    """Return what a file says.

    Args:
        file: The file; its folder is the root of all sources.

    Raises:
        ConfigError: With every mistake that was found.
    """
    document = yamlfile.read(file)
    if document.value is None and document.problems:
        raise ConfigError(tuple(map(str, document.problems)))
    reading = _Reading(document, file)
    settings = reading.settings()
    if reading.problems:
        ordered = sorted(reading.problems, key=lambda p: (p.location.line, p.location.column))
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
    read = (_image(name, filemodel.ImageForm.model_validate(form)) for name, form in images)
    return (_SCRATCH, *read)


class _Reading:
    """One reading of one file.

    Attributes:
        problems: What is wrong with it.
    """

    def __init__(self, document: Document, file: Path) -> None:
        self._document = document
        self._file = file
        self.problems = list(document.problems)

    def settings(self) -> Settings:
        """Return the settings; worth nothing when there are problems."""
        form = self._form()
        root = self._file.parent.resolve()
        images = self._images(form)
        languages = self._languages(form)
        programs = tuple(
            self._program(name, each, languages[each.language], root)
            for name, each in form.programs.items()
            if each.language in languages
        )
        if self.problems:  # expansion finds the rest, but for what this very call reported
            for program in programs:
                self.problems += self._rules(program)
        return Settings(file=self._file, root=root, programs=programs, images=images)

    def _rules(self, program: Program) -> Iterable[Problem]:
        missing = {link for link in program.link if program.language.recipe(link) is None}
        missing |= {one.link for one in program.include if not program.language.recipe(one.link)}
        return () if missing else matrix.check(program)

    # --- form ------------------------------------------------------------------------------------

    def _form(self) -> filemodel.File:
        """Return the form of file and catalogue, or of what is right when something is wrong."""
        value = _extended(self._document.value, catalogue())
        known = filevalues.Known(
            images=frozenset({_SCRATCH.name, *_names(value, "images")}),
            languages=frozenset(_names(value, "languages")),
        )
        try:
            return filemodel.File.model_validate(value, context=known)
        except ValidationError as error:
            details = error.errors(include_url=False)
        self.problems += [self._problem(detail) for detail in details]
        sound = _without({detail["loc"][:2] for detail in details}, value)
        try:
            return filemodel.File.model_validate(sound, context=known)
        except ValidationError:
            return filemodel.File.model_construct(version=1, programs={})

    def _problem(self, detail: ErrorDetails) -> Problem:
        keys, kind = detail["loc"], detail["type"]
        if keys and keys[-1] == "[key]":
            return Problem(self._document.location(keys[:-1], key=True), _said(detail))
        if kind == "extra_forbidden":
            location = self._document.location(keys, key=True)
            return Problem(location, _unknown_key(keys))
        if kind == "missing":
            return Problem(self._document.location(keys[:-1]), f"key {keys[-1]!r} is missing.")
        return Problem(self._document.location(keys), _said(detail))

    # --- images and languages ------------------------------------------------------------------

    def _images(self, form: filemodel.File) -> tuple[Image, ...]:
        for name, each in form.images.items():
            if not (each.registry or each.apt or each.archive):
                self._report(("images", name), "has no source. Give it registry, apt or archive.")
        return (_SCRATCH, *(_image(name, each) for name, each in form.images.items()))

    def _languages(self, form: filemodel.File) -> dict[str, Language]:
        languages = {}
        for name, each in form.languages.items():
            if each.artifact is None or not each.link:
                what = "artifact" if each.artifact is None else "link"
                self._report(("languages", name), f"key {what!r} is missing.")
            else:
                languages[name] = _language(name, each, each.artifact)
        return languages

    # --- programs ------------------------------------------------------------------------------

    def _program(
        self, name: str, form: filemodel.ProgramForm, language: Language, root: Path
    ) -> Program:
        keys: Keys = ("programs", name)
        self._check_links(keys, form, language)
        self._check_port(keys, form.smoke)
        self._check_build(keys, form, language)
        self._check_libs(keys, form, language)
        self._check_files(keys, form, language)
        locate = self._document.location
        return Program(
            name=name,
            language=language,
            source=root / form.source,
            run=tuple(form.run),
            link=tuple(form.link),
            build=tuple(form.build) if form.build else None,
            libs=tuple(map(Libs, form.libs)),
            cmd=tuple(form.cmd) if isinstance(form.cmd, list) else form.cmd,
            options=_options(form),
            include=tuple(
                Inclusion(
                    run=each.run,
                    link=LinkMode(each.link),
                    build=each.build,
                    libs=Libs(each.libs),
                    location=locate((*keys, "include", at)),
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
            smoke=_smoke(form.smoke),
            network=form.network == "default",
            location=locate(keys, key=True),
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
                self._report(where, text)

    def _check_port(self, keys: Keys, form: filemodel.SmokeForm) -> None:
        port = form.service.port if form.service else 0
        for need in form.needs:
            if _PORTS.get(Need(need)) == port:
                text = f"{port} is taken by what answers {str(need)!r} in a smoke run. Use another."
                self._report((*keys, "smoke", "service", "port"), text)

    def _check_build(self, keys: Keys, form: filemodel.ProgramForm, language: Language) -> None:
        recipes = language.recipes
        if form.flags and not all("{flags}" in "".join(each.commands) for each in recipes):
            text = f"language {language.name!r} takes none: its commands have no {{flags}}."
            self._report((*keys, "flags"), text)
        if form.strip and not language.strip:
            text = f"language {language.name!r} has nothing to strip. Leave it out."
            self._report((*keys, "strip"), text)

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
                self._report(where, text)

    def _check_files(self, keys: Keys, form: filemodel.ProgramForm, language: Language) -> None:
        built = form.artifacts or [language.artifact.replace("{program}", str(keys[1]))]
        taken = {f"/{posixpath.basename(path)}": path for path in reversed(built)}
        for at, path in enumerate(form.artifacts or ()):
            if taken[f"/{posixpath.basename(path)}"] != path:
                text = f"its place in the image, /{posixpath.basename(path)}, is another's."
                self._report((*keys, "artifacts", at), text)
        for at, each in enumerate(form.files):
            target = each.to or each.build or ""
            if target in taken:
                self._report((*keys, "files", at), f"{target} is the place of {taken[target]}.")
            taken[target] = each.source or each.build or ""

    def _selector(self, form: filemodel.SelectorForm, keys: Keys) -> Selector:
        return Selector(
            run=_tuple(form.run),
            link=_tuple(form.link),
            build=_tuple(form.build),
            location=self._document.location(keys),
        )

    def _report(self, keys: Keys, text: str) -> None:
        self.problems.append(Problem(self._document.location(keys), text))


def _extended(value: Any, shipped: dict[str, dict[str, Any]]) -> Any:
    """Return the file's value with the catalogue under its own images and languages."""
    if not isinstance(value, dict):
        return value
    extended = dict(value)
    for section, entries in shipped.items():
        mine = value.get(section, {})
        if isinstance(mine, dict):
            extended[section] = entries | {
                name: _over(entries[name], each) if name in entries else each
                for name, each in mine.items()
            }
    return extended


def _over(base: dict[str, Any], mine: Any) -> Any:
    """Return an entry with the file's keys in place of the catalogue's; link modes add up."""
    if not isinstance(mine, dict):
        return mine
    link = mine.get("link")
    if isinstance(link, dict):
        mine = {**mine, "link": {**base.get("link", {}), **link}}
    return {**base, **mine}


def _names(value: Any, section: str) -> tuple[str, ...]:
    entries = value.get(section) if isinstance(value, dict) else None
    return tuple(entries) if isinstance(entries, dict) else ()


def _without(broken: set[tuple[int | str, ...]], value: Any) -> Any:
    """Return the file's value without the programs that have mistakes of their own."""
    if not isinstance(value, dict) or not isinstance(value.get("programs"), dict):
        return value
    bad = {keys[1] for keys in broken if keys[:1] == ("programs",) and len(keys) > 1}
    programs = {name: each for name, each in value["programs"].items() if name not in bad}
    return {**value, "programs": programs}


def _said(detail: ErrorDetails) -> str:
    """Return pydantic's finding in the words of this file."""
    kind, given, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind in _WANTED:
        is_number = isinstance(given, (bool, int, float))
        hint = f' Quote it: "{given}".' if kind == "string_type" and is_number else ""
        return f"must be {_WANTED[kind]}, not {_KINDS.get(type(given), 'that')}.{hint}"
    match kind:
        case "value_error":
            return str(context["error"])
        case "too_short":
            said = "must not be empty"
        case "literal_error":
            said = f"must be {context['expected']}, not {given!r}"
        case "greater_than_equal":
            said = f"must be at least {context['ge']}, not {given!r}"
        case "less_than_equal":
            said = f"must be at most {context['le']}, not {given!r}"
        case _:
            said = detail["msg"]
    return f"{said}."


def _unknown_key(keys: Keys) -> str:
    name = str(keys[-1])
    if name in PLANNED:
        return f"key {name!r} is not supported by this version. Leave it out."
    known = _form_at(keys[:-1]).model_fields
    hint = did_you_mean(name, known) or f" Known are {', '.join(known)}."
    return f"unknown key {name!r}.{hint}"


def _form_at(keys: Keys) -> type[filemodel.Form]:
    """Return the form that the mapping under some keys has."""
    form: type[filemodel.Form] = filemodel.File
    named = False
    for key in keys:
        if named:  # a key of the user's own, such as a program's name
            named = False
            continue
        field = form.model_fields.get(str(key))
        if field is not None:
            inner, named = _inner(field.annotation)
            form = inner or form
    return form


def _inner(annotation: Any) -> tuple[type[filemodel.Form] | None, bool]:
    """Return the form inside an annotation, and whether names of the user's lead to it."""
    if isinstance(annotation, type) and issubclass(annotation, filemodel.Form):
        return annotation, False
    for argument in get_args(annotation):
        found, named = _inner(argument)
        if found:
            return found, named or get_origin(annotation) is dict
    return None, False


def _image(name: str, form: filemodel.ImageForm) -> Image:
    sources = []
    if form.registry:
        sources.append(
            ImageSource(
                kind=SourceKind.REGISTRY,
                reference=form.registry.reference,
                insecure=form.registry.insecure,
                setup=(*form.registry.setup, *form.setup),
            )
        )
    if form.apt:
        sources.append(
            ImageSource(
                kind=SourceKind.APT,
                packages=tuple(form.apt.packages or ()),
                setup=(*form.apt.setup, *form.setup),
                unavailable=form.apt.unavailable or "",
            )
        )
    if form.archive:
        sources.append(
            ImageSource(
                kind=SourceKind.ARCHIVE,
                reference=form.archive.path,
                setup=(*form.archive.setup, *form.setup),
            )
        )
    return Image(
        name=name, sources=tuple(sources), env=tuple(form.env.items()), user=form.user or ""
    )


def _language(name: str, form: filemodel.LanguageForm, artifact: str) -> Language:
    return Language(
        name=name,
        recipes=tuple(
            Recipe(
                link=LinkMode(link),
                image=each.build,
                commands=tuple(each.commands),
                env=tuple(each.env.items()),
                install=tuple(each.install or ()),
            )
            for link, each in form.link.items()
        ),
        artifact=artifact,
        cmd=tuple(form.cmd or ()),
        strip=form.strip,
        caches=tuple(form.caches),
        static_by_nature=form.static_by_nature,
        mismatch_hint=form.mismatch_hint,
        only_dynamic=form.only_dynamic,
    )


def _options(form: filemodel.ProgramForm) -> Options:
    return Options(
        flags=tuple(form.flags),
        strip=form.strip,
        build_env=tuple(form.build_env.items()),
        artifacts=tuple(form.artifacts or ()),
        files=tuple(
            CopiedFile(each.build or str(each.source), each.to or str(each.build))
            for each in form.files
        ),
        env=tuple(form.env.items()),
        user=form.user or "",
        labels=tuple(form.labels.items()),
        entrypoint=None if form.entrypoint is None else tuple(form.entrypoint),
    )


def _smoke(form: filemodel.SmokeForm) -> Smoke:
    values = {
        **form.model_dump(),
        "args": tuple(form.args),
        "env": tuple(form.env.items()),
        "service": Service(**form.service.model_dump()) if form.service else None,
        "needs": tuple(dict.fromkeys(map(Need, form.needs))),
    }
    return Smoke(**values)


def _tuple(globs: list[str] | None) -> tuple[str, ...] | None:
    return None if globs is None else tuple(globs)
