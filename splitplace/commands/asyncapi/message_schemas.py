"""JSON schemas of all message types, with the docstrings of fields as descriptions."""

import ast
import inspect
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from splitplace.messages.base import Part
from splitplace.messages.topics import all_topics


class _Schemas(GenerateJsonSchema):
    """Make pydantic's schemas, without titles that repeat the name, and with bytes as bytes."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ANN401, ARG002 - pydantic's
        return False

    def bytes_schema(self, schema: core_schema.BytesSchema) -> JsonSchemaValue:  # noqa: ARG002
        return {"type": "string", "contentEncoding": "base64"}


def message_schemas(ref_template: str = "#/components/schemas/{model}") -> dict[str, dict[str, Any]]:
    """Return the schemas of all message types of the topic table and of their parts, by name.

    Args:
        ref_template: how one schema refers to another, `{model}` being its name.
    """
    mode: JsonSchemaMode = "validation"
    kinds: dict[type[BaseModel], None] = {topic.message: None for topic in all_topics()}
    _, container = models_json_schema(
        [(kind, mode) for kind in kinds], ref_template=ref_template, schema_generator=_Schemas
    )
    schemas: dict[str, dict[str, Any]] = container["$defs"]
    classes = {kind.__name__: kind for kind in _subclasses(Part)}
    for name, schema in schemas.items():
        documentation = field_documentation(classes[name])
        schema["description"] = inspect.cleandoc(classes[name].__doc__ or "")
        schema["title"] = name
        schema.get("properties", {}).update(_computed(classes[name]))
        for field, text in documentation.items():
            schema["properties"][field] = _described(schema["properties"][field], text)
    return dict(sorted(schemas.items()))


def _computed(kind: type[BaseModel]) -> dict[str, Any]:
    """Return the schemas of fields that are sent, but made from others."""
    if not kind.model_computed_fields:
        return {}
    sent = kind.model_json_schema(mode="serialization", schema_generator=_Schemas)["properties"]
    return {field: sent[field] for field in kind.model_computed_fields}


def field_documentation(kind: type[BaseModel]) -> dict[str, str]:
    """Return the docstrings of a message type's fields, by field."""
    texts: dict[str, str] = {}
    for definition in _definitions(inspect.getsourcefile(kind) or ""):
        if definition.name != kind.__name__:
            continue
        for field, below in zip(definition.body, definition.body[1:], strict=False):
            match field, below:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    texts[name] = " ".join(inspect.cleandoc(text).split())
    return texts


@cache
def _definitions(path: str) -> tuple[ast.ClassDef, ...]:
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - inspect gives a string
        return tuple(node for node in ast.parse(file.read()).body if isinstance(node, ast.ClassDef))


def _described(schema: dict[str, Any], text: str) -> dict[str, Any]:
    """Add a description. A reference is wrapped: not every reader allows one beside it."""
    return {"allOf": [schema], "description": text} if "$ref" in schema else schema | {"description": text}


def _subclasses(kind: type[Part]) -> set[type[Part]]:
    direct = set(kind.__subclasses__())
    return direct | {further for model in direct for further in _subclasses(model)}
