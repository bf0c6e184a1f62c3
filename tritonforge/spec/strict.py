"""What every part of the spec is made of: strict objects, names and paths."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, StringConstraints

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=200)]
"""A name that is also a folder: letters, digits, `_`, `.`, `-`; it begins with a letter or a digit."""

RelativePath = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class Strict(BaseModel):
    """Unknown keys are errors; values are not changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Itself: a default that is never changed can be everybody's."""
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Fields are described by the docstrings below them."""
        schema = handler(core)
        texts = field_docs(cls)
        for name, value in handler.resolve_ref_schema(schema).get("properties", {}).items():
            if name in texts:
                value.setdefault("description", texts[name])
        return schema


def field_docs(model: type[BaseModel]) -> dict[str, str]:
    """The docstrings below the fields of a class and its bases, read from their source only when somebody asks:
    reading them whenever the program starts (``use_attribute_docstrings``) would be a fifth of that time."""
    texts: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if not (issubclass(cls, BaseModel) and cls.model_fields):
            continue
        try:
            [body] = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        except (OSError, TypeError):
            continue  # installed without its source
        assert isinstance(body, ast.ClassDef)
        for field, below in itertools.pairwise(body.body):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    texts[name] = inspect.cleandoc(text)
    return texts
