"""Forms to values: what the rest of the package works with, where nothing can be wrong any more."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from nox_variants.limits import Limit, Measure
from nox_variants.model import (
    CopiedFile,
    Image,
    ImageSource,
    Language,
    LinkMode,
    Mirror,
    Need,
    Options,
    Recipe,
    Service,
    Smoke,
    SourceKind,
)
from nox_variants.registrycache import RegistryCache

if TYPE_CHECKING:
    from nox_variants import budgetforms, filemodel, mirrorforms


def image(name: str, form: filemodel.ImageForm, folder: str = "") -> Image:
    """Return an image; an archive's path is relative to a folder, which is relative to the root."""
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
                reference=posixpath.normpath(posixpath.join(folder, form.archive.path)),
                setup=(*form.archive.setup, *form.setup),
            )
        )
    return Image(
        name=name, sources=tuple(sources), env=tuple(form.env.items()), user=form.user or ""
    )


def languages(form: filemodel.File, without: frozenset[str] = frozenset()) -> dict[str, Language]:
    """Return the languages that are complete, without some."""
    return {
        name: _language(name, each, each.artifact)
        for name, each in form.languages.items()
        if each.artifact is not None and each.link and name not in without
    }


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


def options(form: filemodel.ProgramForm) -> Options:
    """Return what a program changes about its build and its image."""
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


_MEASURES = {"size": Measure.CONTENT, **{each.value: each for each in Measure}}
"""Measures, by what the file calls them."""


def limits(form: budgetforms.BudgetForm) -> tuple[Limit, ...]:
    """Return the limits of a budget."""
    return tuple(
        Limit(
            measure=_MEASURES[name],
            warn=each.warn,
            fail=each.fail,
            growth_warn=each.growth.warn if each.growth else None,
            growth_fail=each.growth.fail if each.growth else None,
            ratchet=getattr(each, "ratchet", False),
        )
        for name in _MEASURES
        if (each := getattr(form, name, None)) is not None
    )


def cache(form: filemodel.CacheForm) -> RegistryCache:
    """Return where builds keep their layers."""
    return RegistryCache(repository=form.registry, mode=form.mode, write=form.write)


def mirrors(form: filemodel.File) -> dict[str, tuple[Mirror, ...]]:
    """Return mirrors by registry."""
    return {name: tuple(map(_mirror, each)) for name, each in form.mirrors.items()}


def _mirror(form: mirrorforms.MirrorForm) -> Mirror:
    host, _, prefix = form.host.partition("/")
    return Mirror(host=host, prefix=prefix, insecure=form.insecure)


def smoke(form: filemodel.SmokeForm) -> Smoke:
    """Return a smoke run."""
    values = {
        **form.model_dump(),
        "args": tuple(form.args),
        "env": tuple(form.env.items()),
        "service": Service(**form.service.model_dump()) if form.service else None,
        "needs": tuple(dict.fromkeys(map(Need, form.needs))),
    }
    return Smoke(**values)
