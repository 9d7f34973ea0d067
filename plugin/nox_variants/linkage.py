"""Whether an artifact is linked the way it was asked for. Pure: facts in, a sentence out."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from nox_variants.model import LinkMode
from nox_variants.results import Linkage

if TYPE_CHECKING:
    from nox_variants.model import Language
    from nox_variants.plan import Plan
    from nox_variants.results import Build, FileFacts

_STATIC = frozenset({Linkage.STATIC, Linkage.STATIC_PIE})
_DYNAMIC = frozenset({Linkage.GLIBC_DYNAMIC, Linkage.MUSL_DYNAMIC, Linkage.OTHER_DYNAMIC})
_NAMED = 3
_LONGEST = 255


def mismatch(requested: LinkMode, facts: FileFacts, language: Language) -> str | None:
    """Return a sentence when an artifact is not linked as asked, else None.

    Args:
        requested: The variant's link mode.
        facts: What the artifact says about itself.
        language: Whether its dynamic builds may rightly be static, and what to do.
    """
    if _fits(requested, facts, language):
        return None
    sentence = f"{requested} was asked for, but it is {describe(facts)}"
    # The hint is about static builds that come out dynamic, and about nothing else.
    hinted = language.mismatch_hint and facts.linkage in _DYNAMIC
    return f"{sentence}: {language.mismatch_hint}" if hinted else sentence


def mismatches(plan: Plan, build: Build) -> str | None:
    """Return a sentence for the first artifact of a variant that is not linked as asked, else None.

    What another program runs is not linked at all; and besides the program itself, a build may make
    what is no program.
    """
    if plan.language.cmd:
        return None
    for number, each in enumerate(build.artifacts[: len(plan.build.artifacts)]):
        if number and each.facts.linkage in {Linkage.OTHER, Linkage.SCRIPT}:
            continue
        if found := mismatch(plan.variant.link, each.facts, plan.language):
            return f"{each.path}: {found}" if number else found
    return None


def describe(facts: FileFacts) -> str:
    """Return how an artifact is linked, in words that are safe to print."""
    match facts.linkage:
        case Linkage.OTHER:
            return "neither an ELF program nor a script"
        case Linkage.SCRIPT:
            return f"a script for {_plain(facts.interpreter) or 'nothing'}"
        case Linkage.STATIC | Linkage.STATIC_PIE:
            return f"{facts.linkage} with glibc" if facts.abi_tag else str(facts.linkage)
        case Linkage.GLIBC_DYNAMIC | Linkage.MUSL_DYNAMIC | Linkage.OTHER_DYNAMIC:
            return f"{facts.linkage} (needs {_needs(facts)})"
        case _:
            assert_never(facts.linkage)


def _fits(requested: LinkMode, facts: FileFacts, language: Language) -> bool:
    match requested:
        case LinkMode.DYNAMIC:
            static = facts.linkage in _STATIC and language.static_by_nature
            return static or facts.linkage in _DYNAMIC or facts.linkage is Linkage.SCRIPT
        case LinkMode.STATIC:
            return facts.linkage in _STATIC
        case LinkMode.MUSL:
            # glibc's start files leave an ABI tag in a static program, musl's do not.
            static = facts.linkage in _STATIC and not facts.abi_tag
            return static or facts.linkage is Linkage.MUSL_DYNAMIC
        case _:
            assert_never(requested)


def _needs(facts: FileFacts) -> str:
    """Return the loader and the libraries, a few of them."""
    names = [_plain(name) for name in (facts.interpreter, *facts.needed)]
    if len(names) > _NAMED + 1:
        names = [*names[:_NAMED], f"{len(names) - _NAMED} more"]
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _plain(name: str) -> str:
    return name if name.isprintable() and len(name) <= _LONGEST else repr(name[:_LONGEST])
