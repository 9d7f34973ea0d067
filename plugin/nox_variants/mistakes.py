"""pydantic's findings in the words of ``variants.yaml``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args, get_origin

from nox_variants import filemodel
from nox_variants.errors import did_you_mean
from nox_variants.laterforms import Later

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from nox_variants.yamlfile import Keys

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


def said(detail: ErrorDetails) -> str:
    """Return what is wrong with a value."""
    kind, given, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind in _WANTED:
        is_number = isinstance(given, (bool, int, float))
        hint = f' Quote it: "{given}".' if kind == "string_type" and is_number else ""
        return f"must be {_WANTED[kind]}, not {_KINDS.get(type(given), 'that')}.{hint}"
    match kind:
        case "value_error":
            return str(context["error"])
        case "too_short":
            text = "must not be empty"
        case "literal_error":
            text = f"must be {context['expected']}, not {given!r}"
        case "greater_than_equal":
            text = f"must be at least {context['ge']}, not {given!r}"
        case "less_than_equal":
            text = f"must be at most {context['le']}, not {given!r}"
        case _:
            text = detail["msg"]
    return f"{text}."


def unknown_key(keys: Keys) -> str:
    """Return what is wrong with a key that its form does not have."""
    name = str(keys[-1])
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
            later = next((each for each in field.metadata if isinstance(each, Later)), None)
            form = inner or (later.form if later else form)
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
