"""A config under check: the message, and the tree that knows where each of its values came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tritonforge.errors import Place, SpecError
from tritonforge.repository.schema import Path_
from tritonforge.repository.tree import Node, Source, find
from tritonforge.spec.document import dotted

if TYPE_CHECKING:
    from tritonforge.repository.request import ConfigRequest


@dataclass(frozen=True, slots=True)
class Subject:
    """What the checks look at."""

    request: ConfigRequest
    message: Any
    tree: Node

    @property
    def batching(self) -> bool:
        """Whether dims leave the batch axis out."""
        return bool(self.message.max_batch_size > 0)

    def source(self, path: Path_) -> Source:
        """Where the value at ``path``, or its nearest parent, came from."""
        return find(self.tree, path).source

    def wrong(
        self, path: Path_, message: str, *, expected: object = None, found: object = None, hint: str | None = None
    ) -> SpecError:
        """An error at the place of a value, saying what wrote it."""
        source = self.source(path)
        for length in range(len(path) - 1, 0, -1):
            # What was removed, or follows from something that was said, is best explained by its surroundings.
            if source.place is None:
                source = self.source(path[:length])
        field = dotted(path)
        place = source.place
        if place is None:
            place = Place(field=f"{self.request.name}: {field}")
        elif place.field is None:
            place = Place(place.file, place.line, field)
        return SpecError(
            message,
            place=place,
            expected=None if expected is None else str(expected),
            found=None if found is None else str(found),
            hint=hint,
            details=[f"said by: {source.label}"],
        )
