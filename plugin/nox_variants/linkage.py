"""Link facts held against the link mode that was asked for. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from nox_variants.model import Linkage, LinkMode

if TYPE_CHECKING:
    from nox_variants.model import ElfFacts, Language

_STATIC = frozenset({Linkage.STATIC, Linkage.STATIC_PIE})
_DYNAMIC = frozenset({Linkage.GLIBC_DYNAMIC, Linkage.MUSL_DYNAMIC, Linkage.OTHER_DYNAMIC})


def mismatch(requested: LinkMode, facts: ElfFacts, language: Language) -> str | None:
    """Return a sentence when an artifact is not linked as asked, else None.

    Args:
        requested: The link mode.
        facts: Of the artifact.
        language: Whether its dynamic builds may rightly be static, and what to do.
    """
    match requested:
        case LinkMode.DYNAMIC:
            fits = facts.linkage in _DYNAMIC or facts.linkage is Linkage.SCRIPT
            fits |= facts.linkage in _STATIC and language.static_by_nature
        case LinkMode.STATIC:
            fits = facts.linkage in _STATIC
        case LinkMode.MUSL:
            fits = facts.linkage is Linkage.MUSL_DYNAMIC
            fits |= facts.linkage in _STATIC and not facts.abi_tag
        case _:
            assert_never(requested)
    return None if fits else _sentence(requested, facts, language)


def _sentence(requested: LinkMode, facts: ElfFacts, language: Language) -> str:
    actual = str(facts.linkage)
    if requested is LinkMode.MUSL and facts.linkage in _STATIC:
        actual += " against glibc, not musl"
    needs = [name for name in (facts.interpreter, *facts.needed) if name]
    if needs:
        actual += f" (needs {', '.join(needs)})"
    sentence = f"{requested} was asked for, but the artifact is {actual}"
    return f"{sentence}: {language.mismatch_hint}" if language.mismatch_hint else f"{sentence}."
