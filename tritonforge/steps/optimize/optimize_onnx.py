"""``optimize-onnx``: ONNX Runtime's graph optimisations, done once instead of at every load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tritonforge.artifact.artifact import Draft
from tritonforge.errors import CheckFailed, Place
from tritonforge.runners.onnx import MODEL
from tritonforge.runners.onnx_session import open_session
from tritonforge.sources.onnx_file import operator_domains, parse
from tritonforge.steps.onnx_files import (
    DATA,
    carry_others,
    drop_unused_domains,
    external_of,
    kept_draft,
    made_by,
    refuse_large,
    write,
)
from tritonforge.steps.step import Input, Job, Needs

if TYPE_CHECKING:
    import onnxruntime

ORT_MODEL: Final = "model.ort"
"""ONNX Runtime tells its own format by this extension (``core/session/inference_session.cc``), and so does Triton's
backend, which hands the path on."""

_NCHWC: Final = "com.microsoft.nchwc"
_LEVELS: Final = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}


class OptimizeOnnx:
    """Writes the graph that ONNX Runtime's CPU session would compute.

    The configuration has ``level`` (``none``, ``basic``, ``extended``, ``all``) and ``format`` (``onnx``, ``ort``).
    ``all`` lays weights out for the vector extensions of this processor (ONNX Runtime, ``graph-optimizations``: layout
    optimisations), so that its result is tied to it. Files in ONNX Runtime's own format differ from run to run in the
    order of one table.
    """

    name = "optimize-onnx"
    version = 1

    def needs(self, config: Mapping[str, Any], input_bytes: int) -> Needs:
        facets = ("processor",) if config["level"] == "all" else ()
        return Needs(memory=(512 << 20) + 4 * input_bytes, tools=("onnx", "onnxruntime"), facets=facets)

    def run(self, job: Job) -> Draft:
        source = job.inputs["model"]
        level, format_ = str(job.config["level"]), str(job.config["format"])
        if format_ == "ort":
            refuse_large(source, "optimize-onnx", "take `format: onnx`: ONNX Runtime's own format ends at 2 GiB, too")
            return self._ort(job, source, level)
        optimize(source, job.out / MODEL, level)
        model = parse(job.out / MODEL)
        if level != "all" and _NCHWC in operator_domains(model):
            raise CheckFailed(
                f"ONNX Runtime tied the model to this processor at the level '{level}'",
                found=f"operators of {_NCHWC}",
                hint="take `optimize: all`, which says so, or a lower level",
            )
        drop_unused_domains(model)
        write(model, job.out, external=False)  # external data is untouched: the message has none of it
        nodes = {"before": len(parse(source.folder / MODEL).graph.node), "after": len(model.graph.node)}
        print(f"{nodes['before']} nodes before, {nodes['after']} after")  # noqa: T201 - the step's log
        return kept_draft(
            job, "the optimised model", "take a lower level", made_by=_made(source, level), optimized=level
        )

    def _ort(self, job: Job, source: Input, level: str) -> Draft:
        path = job.out / ORT_MODEL
        optimize(source, path, level)
        session = open_session(path, optimise=False, place=Place(path))
        _require_same(source, session)
        carry_others(source, job.out)
        # No ONNX is left of it: what of the metadata speaks of the ONNX file is the source's.
        metadata = {**source.artifact.metadata, "external": [], "file": ORT_MODEL}
        metadata.update(made_by=_made(source, level), optimized=level)
        return Draft("onnx", source.artifact.signature, metadata)


def optimize(source: Input, target: Path, level: str) -> None:
    """Let ONNX Runtime write what it makes of ``source`` at ``level``; the extension of ``target`` is the format.

    Raises:
        CheckFailed: ONNX Runtime refuses the model.
    """
    path = source.folder / MODEL

    def write_it(options: onnxruntime.SessionOptions) -> None:
        import onnxruntime

        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, _LEVELS[level])
        options.optimized_model_filepath = str(target)
        if target.name == MODEL and external_of(source):
            options.add_session_config_entry("session.optimized_model_external_initializers_file_name", DATA)
            options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")

    open_session(path, optimise=False, place=Place(path), adjust=write_it)


def _made(source: Input, level: str) -> str:
    import onnxruntime

    return made_by(source, f"onnxruntime {onnxruntime.__version__} (optimised: {level})")


def _require_same(source: Input, session: Any) -> None:
    signature = source.artifact.signature
    assert signature is not None
    for kind, wanted, found in (
        ("inputs", signature.inputs, session.get_inputs()),
        ("outputs", signature.outputs, session.get_outputs()),
    ):
        names = [tensor.name for tensor in wanted], [item.name for item in found]
        if names[0] != names[1]:
            raise CheckFailed(
                f"the {kind} of model.ort are others than the source's",
                expected=", ".join(names[0]),
                found=", ".join(names[1]),
            )
