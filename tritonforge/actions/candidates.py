"""Ask a release's models where they stand for now: candidates under folder names that no client knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tritonforge.triton.client import Client
from tritonforge.triton.connection import Connection


class CandidateClient(Client):
    """A client whose callers use a release's own names; ``names`` says what a folder is called on the server now."""

    def __init__(self, connection: Connection, names: Mapping[str, str]) -> None:
        super().__init__(connection)
        self._names = dict(names)

    def model_ready(self, name: str, *arguments: Any, **options: Any) -> bool:
        return super().model_ready(self._now(name), *arguments, **options)

    def model_metadata(self, name: str, *arguments: Any, **options: Any) -> dict[str, Any]:
        return super().model_metadata(self._now(name), *arguments, **options)

    def model_config(self, name: str, *arguments: Any, **options: Any) -> Any:
        return super().model_config(self._now(name), *arguments, **options)

    def infer(self, model: str, *arguments: Any, **options: Any) -> Any:
        return super().infer(self._now(model), *arguments, **options)

    def _now(self, name: str) -> str:
        return self._names.get(name, name)
