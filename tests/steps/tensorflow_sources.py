"""TensorFlow sources in the store, through the real import step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steps.conftest import Run
from tritonforge.artifact.artifact import Artifact

ImportTensorFlow = Callable[..., Artifact]


@pytest.fixture
def import_tensorflow(run: Run) -> ImportTensorFlow:
    """``import_tensorflow(kind, path, recipe={…}, **configuration)``; ``code`` is a file below ``code/``."""
    pytest.importorskip("tensorflow", reason="tensorflow is not installed")

    def import_it(
        kind: str, path: Path, recipe: dict[str, Any] | None = None, *, code: Path | None = None, **config: Any
    ) -> Artifact:
        root = path if path.is_dir() else path.parent
        files = sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
        sources = {f"model/{file.relative_to(root).as_posix()}": file for file in files}
        if code is not None:
            sources[f"code/{code.name}"] = code
        made = {"recipe": {"kind": kind, **(recipe or {})}, "inputs": {}, "outputs": {}, "batched": None}
        return run("import-tensorflow", {**made, "axes": {}, "ranges": {}, **config}, sources=sources)

    return import_it
