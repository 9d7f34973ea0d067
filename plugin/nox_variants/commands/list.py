"""List every variant, or every combination that is none and why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from nox_variants import commands, matrix

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from nox_variants.matrix import Expansion
    from nox_variants.model import Variant


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--excluded",
        action="store_true",
        help="list the dropped combinations and the rules that dropped them",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")


def run(args: argparse.Namespace) -> int:
    """Print the variants, or the dropped combinations, of a file."""
    expansion = matrix.expand(commands.settings(args))
    values = dropped(expansion) if args.excluded else variants(expansion.variants)
    if args.json:
        print(json.dumps(values, indent=1, ensure_ascii=False))
        return 0
    rows = [_dropped_row(value) if args.excluded else _row(value) for value in values]
    widths = [max(map(len, column), default=0) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        print("  ".join(f"{cell:<{width}}" for cell, width in cells).rstrip())
    return 0


def variants(found: Sequence[Variant]) -> list[dict[str, Any]]:
    """Return what there is to say of each variant before it runs."""
    return [
        {
            "variant": variant.id,
            "program": variant.program,
            "language": variant.language,
            "build_image": variant.build_image,
            "run_image": variant.run_image,
            "link": variant.link,
            "expected": {"verdict": variant.expected.verdict, "cause": variant.expected.cause},
            "tags": matrix.tags(variant),
        }
        for variant in found
    ]


def dropped(expansion: Expansion) -> list[dict[str, Any]]:
    """Return each dropped combination and the rule that dropped it."""
    return [
        {"variant": one.id, "rule": one.rule.path, "location": str(one.rule)}
        for one in expansion.dropped
    ]


def _row(value: dict[str, Any]) -> tuple[str, ...]:
    verdict, cause = value["expected"]["verdict"], value["expected"]["cause"]
    built = f"{value['language']}, built in {value['build_image']}"
    return value["variant"], built, f"expected: {verdict}{f', {cause}' if cause else ''}"


def _dropped_row(value: dict[str, Any]) -> tuple[str, ...]:
    return value["variant"], f"{value['location']}: {value['rule']}"
