"""What a file need not say: its entries over the catalogue's, its `defaults` under its programs.

Works on plain values, before they are checked: a value that is of the wrong kind stays as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nox_variants.yamlfile import Keys

ADDED_UP = ("smoke", "env", "build_env", "labels")
"""Mappings of a program whose keys are added to those of the defaults."""


def filled(value: Any, shipped: dict[str, dict[str, Any]]) -> tuple[Any, dict[Keys, Keys]]:
    """Return a file's value with all that its programs, images and languages inherit.

    Args:
        value: The file's value.
        shipped: The catalogue's `images` and `languages`.

    Returns:
        The value, and where what comes from `defaults` stands: the way to it there, by the way to
        it in the value.
    """
    if not isinstance(value, dict):
        return value, {}
    whole = dict(value)
    for section, entries in shipped.items():
        if isinstance(mine := value.get(section), dict):
            whole[section] = {
                name: _over(entries[name], each) if name in entries else each
                for name, each in mine.items()
            }
    origins: dict[Keys, Keys] = {}
    defaults, programs = value.get("defaults"), value.get("programs")
    if isinstance(defaults, dict) and isinstance(programs, dict):
        whole["programs"] = {
            name: _under(defaults, each, ("defaults",), ("programs", name), origins)
            for name, each in programs.items()
        }
    return whole, origins


def origin(keys: Keys, origins: dict[Keys, Keys]) -> Keys:
    """Return the way to a value in the file, of that in the filled value."""
    for end in range(len(keys), 0, -1):
        if (found := origins.get(keys[:end])) is not None:
            return (*found, *keys[end:])
    return keys


def _over(base: dict[str, Any], mine: Any) -> Any:
    """Return an entry with the file's keys in place of the catalogue's; link modes add up."""
    if not isinstance(mine, dict):
        return mine
    link = mine.get("link")
    if isinstance(link, dict):
        mine = {**mine, "link": {**base.get("link", {}), **link}}
    return {**base, **mine}


def _under(
    defaults: dict[str, Any], mine: Any, source: Keys, way: Keys, origins: dict[Keys, Keys]
) -> Any:
    """Return a mapping with the keys of the defaults that it lacks; note where they stand."""
    if not isinstance(mine, dict):
        return mine
    merged = {**defaults, **mine}
    for key, default in defaults.items():
        if key not in mine:
            origins[*way, key] = (*source, key)
        elif len(source) == 1 and key in ADDED_UP and isinstance(default, dict):
            merged[key] = _under(default, mine[key], (*source, key), (*way, key), origins)
    return merged
