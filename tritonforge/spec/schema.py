"""The JSON Schema of ``forge.yaml``, and the reference page that is made from it."""

from __future__ import annotations

from typing import Any

from tritonforge.spec.models import ForgeSpec


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12), with the short forms that the reader takes."""
    schema = ForgeSpec.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "forge.yaml of tritonforge"
    definitions = schema["$defs"]
    for name in ("SourceRef", "TensorDecl"):
        long_form = definitions[name]
        text = {"type": "string", "description": f"Short form. {long_form.get('description', '')}"}
        definitions[name] = {"anyOf": [text, long_form], "title": name}
    # What `defaults` gives need not be written again in each member.
    for name in ("ModelSpec", "EnsembleSpec", "GateSpec"):
        definitions[name].pop("required", None)
    return schema


def reference_page() -> str:
    """``docs/spec.md``: every key with its type, default and meaning."""
    schema = ForgeSpec.model_json_schema()
    definitions: dict[str, Any] = schema["$defs"]
    lines = [
        "# forge.yaml, key by key",
        "",
        "Made from the schema by `make docs`; `tritonforge spec schema` prints the same as JSON Schema for editors.",
        "",
    ]
    lines += _section("forge.yaml", schema)
    for name in sorted(definitions):
        lines += _section(name, definitions[name])
    return "\n".join(lines).rstrip() + "\n"


def _section(name: str, schema: dict[str, Any]) -> list[str]:
    text = " ".join(str(schema.get("description", "")).split())
    lines = [f"## {name}", "", text, "", "| key | type | default | meaning |", "|---|---|---|---|"]
    required = set(schema.get("required", ()))
    for key, value in schema.get("properties", {}).items():
        default = "**required**" if key in required else _default(value)
        meaning = " ".join(str(value.get("description", "")).split()).replace("|", "\\|")
        lines.append(f"| `{key}` | {_type(value)} | {default} | {meaning} |")
    return [*lines, ""]


def _default(value: dict[str, Any]) -> str:
    default = value.get("default")
    if default is None or default == {} or default == []:
        return ""
    return (
        f"`{str(default).lower() if isinstance(default, bool) else default}`"
        if not isinstance(default, dict)
        else "see there"
    )


def _type(value: dict[str, Any]) -> str:
    if "$ref" in value:
        name = value["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    if "oneOf" in value:
        return " or ".join(_type(item) for item in value["oneOf"])
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(_type(item) for item in value["anyOf"] if item.get("type") != "null"))
    if "enum" in value:
        return " or ".join(f"`{item}`" for item in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    kind = str(value.get("type", "any"))
    if kind == "array":
        items = value.get("items")
        return f"list of {_type(items)}" if items else "list"
    if kind == "object":
        inner = value.get("additionalProperties") or next(iter(value.get("patternProperties", {}).values()), None)
        return f"mapping to {_type(inner)}" if isinstance(inner, dict) else "mapping"
    return {"string": "text", "integer": "integer", "number": "number", "boolean": "true or false"}.get(kind, kind)
