"""What every part of the spec is made of: strict objects, names and paths."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=200)]
"""A name that is also a folder: letters, digits, `_`, `.`, `-`; it begins with a letter or a digit."""

RelativePath = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class Strict(BaseModel):
    """Unknown keys are errors; values are not changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
