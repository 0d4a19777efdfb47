"""A small JSON schema validator: the keywords that the engine promises to follow."""

from __future__ import annotations

import re
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_FORMATS = {
    "date": r"\d{4}-\d\d-\d\d",
    "time": r"\d\d:\d\d:\d\d(\.\d+)?(Z|[-+]\d\d:\d\d)",
    "uuid": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
}
_FORMATS["date-time"] = f"{_FORMATS['date']}T{_FORMATS['time']}"


def is_valid(value: Any, schema: Any, root: Any = None) -> bool:
    """Tell whether *value* is valid by *schema*."""
    root = schema if root is None else root
    if isinstance(schema, bool):
        return schema
    checks = (_references, _combinations, _kind, _numbers, _strings, _arrays, _objects)
    return all(check(value, schema, root) for check in checks)


def _references(value: Any, schema: Any, root: Any) -> bool:
    if "$ref" not in schema:
        return True
    target = root
    for step in schema["$ref"].split("/")[1:]:
        target = target[int(step) if isinstance(target, list) else step.replace("~1", "/")]
    return is_valid(value, target, root)


def _combinations(value: Any, schema: Any, root: Any) -> bool:
    for name in ("anyOf", "oneOf"):
        if name in schema and not any(is_valid(value, one, root) for one in schema[name]):
            return False
    return all(is_valid(value, one, root) for one in schema.get("allOf", ()))


def _kind(value: Any, schema: Any, _: Any) -> bool:
    kinds = schema.get("type", list(_TYPES))
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if not any(
        isinstance(value, _TYPES[kind]) and (not isinstance(value, bool) or kind == "boolean")
        for kind in kinds
    ):
        return False
    if "const" in schema and value != schema["const"]:
        return False
    return "enum" not in schema or value in schema["enum"]


def _numbers(value: Any, schema: Any, _: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return True
    return (
        value >= schema.get("minimum", value)
        and value <= schema.get("maximum", value)
        and ("exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"])
        and ("exclusiveMaximum" not in schema or value < schema["exclusiveMaximum"])
    )


def _strings(value: Any, schema: Any, _: Any) -> bool:
    if not isinstance(value, str):
        return True
    form = _FORMATS.get(schema.get("format", ""), ".*")
    return (
        schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
        and re.search(schema.get("pattern", ""), value) is not None
        and ("format" not in schema or re.fullmatch(form, value, re.DOTALL) is not None)
    )


def _arrays(value: Any, schema: Any, root: Any) -> bool:
    if not isinstance(value, list):
        return True
    first, rest = schema.get("prefixItems", []), schema.get("items", True)
    if isinstance(rest, list):
        first, rest = rest, schema.get("additionalItems", True)
    return (
        schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
        and all(is_valid(*pair, root) for pair in zip(value, first, strict=False))
        and all(is_valid(item, rest, root) for item in value[len(first) :])
    )


def _objects(value: Any, schema: Any, root: Any) -> bool:
    if not isinstance(value, dict):
        return True
    named = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    return set(schema.get("required", ())) <= value.keys() and all(
        is_valid(item, named.get(name, others), root) for name, item in value.items()
    )
