"""Runs steps in real worker processes."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tritonforge.artifact.artifact import Artifact
from tritonforge.artifact.digest import digest_file, digest_of
from tritonforge.artifact.store import LocalStore
from tritonforge.build.executor import LocalExecutor, Task
from tritonforge.sources.resolve import SourceFile

Run = Callable[..., Artifact]


@pytest.fixture(scope="session")
def workers() -> Iterator[LocalExecutor]:
    """One worker for all steps, as in a build."""
    executor = LocalExecutor(1)
    yield executor
    executor.close()


@pytest.fixture
def run(workers: LocalExecutor, store: LocalStore, tmp_path: Path) -> Run:
    """``run(step, config, inputs={role: artifact}, sources={path: file})`` gives the artifact or raises."""

    def run_step(
        step: str,
        config: Mapping[str, Any],
        *,
        inputs: Mapping[str, Artifact] | None = None,
        sources: Mapping[str, Path] | None = None,
    ) -> Artifact:
        task = Task(
            node=f"m/{step}",
            step=step,
            config=config,
            inputs={role: artifact.digest for role, artifact in (inputs or {}).items()},
            sources={
                path: SourceFile(file, digest_file(file), file.stat().st_size).for_worker()
                for path, file in (sources or {}).items()
            },
            key=digest_of(str(uuid.uuid4())),
            store=str(store.root),
            log=str(tmp_path / "step.log"),
        )
        # A compiler on a busy machine takes long.
        made = store.artifact(workers.submit(task).result(timeout=300))
        assert made is not None
        return made

    return run_step


def onnx_config(**given: Any) -> dict[str, Any]:
    """The configuration of ``import-onnx``."""
    return {"inputs": {}, "outputs": {}, "batched": None, "axes": {}, "ranges": {}, **given}


def golden_config(**given: Any) -> dict[str, Any]:
    """The configuration of ``golden``."""
    return {"seed": 0, "axes": {}, "ranges": {}, "batches": [1, 3, 4], "tolerance": None, **given}


@pytest.fixture
def import_onnx(run: Run, tmp_path: Path) -> Callable[..., Artifact]:
    """Imports a model that is given as a protobuf."""
    import making_onnx

    def import_it(made: Any, **config: Any) -> Artifact:
        path = making_onnx.save(tmp_path / f"{uuid.uuid4()}.onnx", made)
        return run("import-onnx", onnx_config(**config), sources={"model.onnx": path})

    return import_it
