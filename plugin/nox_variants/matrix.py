"""Settings to variants: product, exclude, include, expect. Pure, deterministic, fast."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import product
from typing import TYPE_CHECKING

from nox_variants import names
from nox_variants.errors import ConfigError, UsageError, did_you_mean
from nox_variants.model import Expected, Libs, LinkMode, Problem, Variant, VariantId

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from nox_variants.limits import Limit, Measure
    from nox_variants.model import Location, Program, Selector, Settings
    from nox_variants.record import Record

EVERY = "variant"
"""The tag that all variants have."""

LIBS = "libs"
"""The tag of variants that bring their libraries."""

_AXES = ("run", "link", "build")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A combination that is no variant, and the rule that took it out."""

    id: VariantId
    rule: Location


@dataclass(frozen=True, slots=True, kw_only=True)
class Expansion:
    """All variants of a file in its order, and all that an `exclude` dropped."""

    variants: tuple[Variant, ...]
    dropped: tuple[Dropped, ...]


def expand(settings: Settings) -> Expansion:
    """Return what a file comes to.

    Raises:
        ConfigError: Rules that match nothing, or combinations that are there twice.
    """
    programs = [_Program(program) for program in settings.programs]
    if problems := _problems(programs):
        raise ConfigError(tuple(map(str, problems)))
    return Expansion(
        variants=tuple(variant for program in programs for variant in program.variants),
        dropped=tuple(dropped for program in programs for dropped in program.dropped),
    )


def check(programs: Iterable[Program]) -> list[Problem]:
    """Return what is wrong with programs' rules."""
    return _problems(_Program(program) for program in programs)


def select(
    variants: Sequence[Variant], *, only: Sequence[str] = (), skip: Sequence[str] = ()
) -> tuple[Variant, ...]:
    """Return the variants whose ids match a glob of `only`, if there are any, and none of `skip`.

    Raises:
        UsageError: A glob matches no id, or nothing is left.
    """
    ids = [variant.id for variant in variants]
    for glob in (*only, *skip):
        if not any(_matches(glob, name) for name in ids):
            raise UsageError(
                f"no variant matches {glob!r}",
                hint=did_you_mean(glob, ids).strip() or "`nox-variants list` shows all ids.",
            )
    left = tuple(
        variant
        for variant in variants
        if (not only or any(_matches(glob, variant.id) for glob in only))
        and not any(_matches(glob, variant.id) for glob in skip)
    )
    if not left:
        raise UsageError("no variant is left", hint="Skip less.")
    return left


def ordered(records: Iterable[Record], variants: Iterable[Variant]) -> tuple[Record, ...]:
    """Return records in the order of their variants; what is no variant any more comes last."""
    places = {str(each.id): at for at, each in enumerate(variants)}
    return tuple(sorted(records, key=lambda each: places.get(each.variant, len(places))))


def tags(variant: Variant) -> tuple[str, ...]:
    """Return a variant's tags, all Python identifiers: what `nox -t` and `nox -k` select by."""
    words = (
        EVERY,
        variant.program,
        variant.language,
        variant.run_image,
        variant.build_image,
        variant.link,
        *((LIBS,) if variant.libs is Libs.BUNDLE else ()),
    )
    return tuple(dict.fromkeys(names.identifier(word) for word in words))


def _matches(glob: str, name: str) -> bool:
    """Tell whether a glob matches an id, or is that id, white space aside as in Nox."""
    glob = re.sub(r"\s", "", glob)
    return glob == name or fnmatchcase(name, glob)


def _problems(programs: Iterable[_Program]) -> list[Problem]:
    """Return what is wrong with programs' rules.

    A rule of several programs, which stands in `defaults`, is for those that it fits: it is wrong
    where it fits none of them.
    """
    said: dict[tuple[Location, str], list[str]] = {}
    for program in programs:
        for about, text in program.said.items():
            said.setdefault(about, []).append(text)
    wrong = {about: texts[0] for about, texts in said.items() if all(texts)}
    in_part = {location for location, part in wrong if part}
    return [
        Problem(location, text)
        for (location, part), text in wrong.items()
        if part or location not in in_part
    ]


class _Program:
    """The expansion of one program.

    Attributes:
        variants: In order: the product, then what is included.
        dropped: What `exclude` took out of the product.
        said: What is wrong, or nothing, with each rule (its location) and each part of it.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._defaults = {recipe.link: recipe.image for recipe in program.language.recipes}
        self.variants: list[Variant] = []
        self.dropped: list[Dropped] = []
        self.said: dict[tuple[Location, str], str] = {}
        self._expand()

    def _expand(self) -> None:
        kept = {variant.id: variant for variant in self._product()}
        whole = list(kept.values())
        for selector in self._program.exclude:
            for variant in self._selected(selector, whole):
                if kept.pop(variant.id, None):
                    self.dropped.append(Dropped(id=variant.id, rule=selector.location))
        for inclusion in self._program.include:
            build = inclusion.build or self._defaults[inclusion.link]
            variant = self._variant(inclusion.run, inclusion.link, build, inclusion.libs)
            text = ""
            if variant.single_stage and variant.libs is Libs.BUNDLE:
                text = "runs where it was built, with all its libraries. Leave libs out."
            elif variant.id in kept:
                text = f"{variant.id} is there already. Leave it out."
            else:
                kept[variant.id] = variant
            self.said[inclusion.location, ""] = text
        if not kept:
            self.said[self._program.location, self._program.name] = "has no variant left."
        self._expect(kept)
        self._limit()

    def _product(self) -> Iterator[Variant]:
        program = self._program
        for run, link in product(program.run, program.link):
            for build in program.build or (self._defaults[link],):
                # A static program has no libraries, and a build image has them all.
                alone = link is not LinkMode.DYNAMIC or run == build
                for libs in (Libs.NONE,) if alone else program.libs:
                    yield self._variant(run, link, build, libs)

    def _variant(self, run: str, link: LinkMode, build: str, libs: Libs) -> Variant:
        program = self._program
        last = "" if build == self._defaults[link] else f",{build}"
        unnamed = Variant(
            id=VariantId(""),
            program=program.name,
            language=program.language.name,
            build_image=build,
            run_image=run,
            link=link,
            libs=libs,
        )
        name = f"{program.name}({run},{unnamed.linking}{last})"
        return replace(unnamed, id=VariantId(name))

    def _expect(self, kept: dict[VariantId, Variant]) -> None:
        expected: dict[VariantId, Expected] = {}
        for rule in self._program.expect:
            value = Expected(
                verdict=rule.verdict, cause=rule.cause, location=rule.selector.location
            )
            for variant in self._selected(rule.selector, kept.values()):
                expected[variant.id] = value
        self.variants = [
            replace(variant, expected=expected[variant.id]) if variant.id in expected else variant
            for variant in kept.values()
        ]

    def _limit(self) -> None:
        limits: dict[VariantId, dict[Measure, Limit]] = {}
        for budget in self._program.budgets:
            for variant in self._selected(budget.selector, self.variants):
                mine = limits.setdefault(variant.id, {})
                mine.update((limit.measure, limit) for limit in budget.limits)
        if limits:
            self.variants = [
                replace(variant, limits=tuple(limits.get(variant.id, {}).values()))
                for variant in self.variants
            ]

    def _selected(self, selector: Selector, variants: Iterable[Variant]) -> list[Variant]:
        """Return what a selector matches; each of its globs has to match something."""
        found = candidates = list(variants)
        place = selector.location
        for axis in _AXES:
            globs: tuple[str, ...] | None = getattr(selector, axis)
            if globs is None:
                continue
            values = dict.fromkeys(_axis(variant, axis) for variant in candidates)
            for glob in globs:
                text = ""
                if not any(fnmatchcase(value, glob) for value in values):
                    hint = did_you_mean(glob, values)
                    text = f"{axis} {glob!r} matches none of {', '.join(values)}.{hint}"
                self.said[place, f"{axis} {glob}"] = text
            matched = {value for value in values if any(fnmatchcase(value, g) for g in globs)}
            found = [variant for variant in found if _axis(variant, axis) in matched]
        text = "" if found else "matches no variant. Correct it or leave it out."
        self.said[place, ""] = text
        return found


def _axis(variant: Variant, axis: str) -> str:
    match axis:
        case "run":
            return variant.run_image
        case "build":
            return variant.build_image
        case _:
            return variant.linking
