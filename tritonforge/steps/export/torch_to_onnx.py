"""``torch-to-onnx``: a PyTorch module as an ONNX file, by the exporters that the spec allows, in their order."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tritonforge.artifact.artifact import Draft
from tritonforge.artifact.signature import Signature
from tritonforge.errors import CheckFailed, ForgeError, Place
from tritonforge.runners.kept import require_kept
from tritonforge.runners.onnx import MODEL
from tritonforge.runners.torch_tensors import last_line
from tritonforge.sources.onnx_file import facts, parse
from tritonforge.sources.torch.code import where
from tritonforge.sources.torch.load import as_positional, load_module, load_program
from tritonforge.steps.compile.control_flow import export_objects, first_of_the_users, trace
from tritonforge.steps.compile.export_graph import dynamic_shapes, require_whole_range
from tritonforge.steps.compile.samples import Sample, difference, positional, samples
from tritonforge.steps.step import Job, Needs

LARGE: Final = 1_900_000_000
"""Bytes of weights above which they go into a file of their own: protobuf ends at 2 GB."""

DATA: Final = "model.onnx.data"
_WAYS_OUT: Final = (
    "serve it with `backend: pytorch` and `pytorch: {method: script}`, or run it as it is with `backend: python`; what "
    "only this exporter cannot take, another may (`export: {exporters: [dynamo, torchscript]}`)"
)


class TorchToOnnx:
    """Exports with every dynamic axis of the signature, and holds the file to it and to the opset that was asked for.

    The configuration has ``opset`` (null for the exporter's own) and ``exporters``: null is ``dynamo``, but
    ``torchscript`` for TorchScript sources, which ``torch.export`` does not take.
    """

    name = "torch-to-onnx"
    version = 2

    def needs(self, config: Mapping[str, Any], input_bytes: int) -> Needs:
        tools = ("torch", "onnx", "onnxscript")
        return Needs(memory=(1 << 30) + 4 * input_bytes, tools=tools)

    def run(self, job: Job) -> Draft:
        import torch

        source = job.inputs["model"]
        signature, recipe = source.artifact.signature, source.artifact.metadata["recipe"]
        assert signature is not None
        loaded = load_module(source.folder, recipe)
        module = as_positional(loaded, recipe, signature)
        tried = samples(signature, source.artifact.metadata)
        arguments = positional(signature, tried[0])
        opset: int | None = job.config["opset"]
        failed: list[str] = []
        own = "torchscript" if recipe["kind"] == "torchscript" else "dynamo"
        for exporter in job.config["exporters"] or [own]:
            target = job.out / MODEL
            try:
                with torch.no_grad(), _quiet():
                    if exporter == "dynamo" and recipe["kind"] == "torch-export":
                        _in_onnx(load_program(source.folder), signature, opset, target)
                    elif exporter == "torchscript" and isinstance(loaded, torch.jit.ScriptModule):
                        _traced(loaded, arguments, signature, opset, target)  # its graph as it is: no second trace
                    elif exporter == "torchscript":
                        _traced(_faithful_trace(module, signature, tried), arguments, signature, opset, target)
                    else:
                        bounds = (source.artifact.metadata.get("generation") or {}).get("axes", {})
                        _dynamo(module, arguments, signature, bounds, opset, target)
                _check(target, signature, opset, exporter)
            except ForgeError as error:
                failed.append(f"{exporter}: {error.message}" + (f" ({error.found})" if error.found else ""))
            except Exception as error:  # exporters raise what torch, sympy and onnxscript raise
                failed.append(f"{exporter}: {_reason(error, source.folder)}")
            else:
                break
            for path in job.out.iterdir():
                path.unlink()
            print(f"failed: {failed[-1]}")  # noqa: T201 - the step's log
        else:
            raise CheckFailed(
                "the module cannot be exported to ONNX",
                place=Place(source.folder),
                found=failed[0],
                details=failed[1:],
                hint=_WAYS_OUT,
            )
        found = facts(parse(job.out / MODEL), Place(job.out / MODEL))
        made_by = f"torch.onnx of torch {torch.__version__} ({exporter})"
        notes = [*source.artifact.metadata.get("notes", []), *(f"not exported by {text}" for text in failed)]
        print(f"made by {made_by}, opset {found.opset}")  # noqa: T201
        return Draft(
            "onnx",
            signature,
            {**found.metadata(), "external": list(found.external), "notes": notes, "made_by": made_by},
        )


def _dynamo(
    module: Any,
    arguments: tuple[Any, ...],
    signature: Signature,
    bounds: Mapping[str, Any],
    opset: int | None,
    target: Path,
) -> None:
    """``torch.export``, then its graph in ONNX, which stands for every size within ``bounds`` (1 to 16 if unsaid)."""
    import torch

    shapes = dynamic_shapes(signature, bounded=False)
    program = torch.export.export(module, arguments, dynamic_shapes=shapes, strict=False)
    require_whole_range(program, signature, bounds)
    _in_onnx(program, signature, opset, target)


def _in_onnx(program: Any, signature: Signature, opset: int | None, target: Path) -> None:
    """The graph of an exported program in ONNX."""
    import torch

    made = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=opset,
        input_names=[tensor.name for tensor in signature.inputs],
        output_names=[tensor.name for tensor in signature.outputs],
        verbose=False,
        optimize=True,
    )
    if made is None:
        raise CheckFailed("the exporter gave nothing")
    _plain(made.model)
    _name_tensors(made.model.graph, signature)
    weights = sum(weight.numel() * weight.element_size() for weight in program.state_dict.values())
    made.save(str(target), external_data=weights > LARGE)


def _plain(model: Any) -> None:
    """Drop what says where and by which line of code a node was made: equal models give equal bytes."""
    nodes = [*model.graph.all_nodes(), *(node for function in model.functions.values() for node in function)]
    for node in nodes:
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()
    for value in [*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()]:
        value.metadata_props.clear()


def _name_tensors(graph: Any, signature: Signature) -> None:
    """The signature's own names, which the exporter may have made identifiers of."""
    for value, tensor in zip(graph.inputs, signature.inputs, strict=False):
        value.name = tensor.name
    for value, tensor in zip(graph.outputs, signature.outputs, strict=False):
        value.name = tensor.name


def _traced(module: Any, arguments: tuple[Any, ...], signature: Signature, opset: int | None, target: Path) -> None:
    """The exporter that goes through TorchScript, by trace: a branch that data decides stays as it was taken."""
    import onnx
    import torch

    dynamic = {
        tensor.name: {
            axis: dim.replace("?", "any_").replace(".", "_").replace(" + ", "_and_")
            for axis, dim in enumerate(tensor.shape)
            if isinstance(dim, str)
        }
        for tensor in (*signature.inputs, *signature.outputs)
    }
    weights = sum(weight.numel() * weight.element_size() for weight in module.state_dict().values())
    torch.onnx.export(
        module,
        arguments,
        str(target),
        dynamo=False,
        opset_version=opset or 18,
        input_names=[tensor.name for tensor in signature.inputs],
        output_names=[tensor.name for tensor in signature.outputs],
        dynamic_axes={name: axes for name, axes in dynamic.items() if axes},
        do_constant_folding=True,
    )
    model = onnx.load(str(target), load_external_data=True) if weights > LARGE else onnx.load(str(target))
    for node in model.graph.node:
        node.doc_string = ""
    if weights > LARGE:
        for path in target.parent.iterdir():
            path.unlink()
        onnx.save_model(model, str(target), save_as_external_data=True, location=DATA, size_threshold=1024)
    else:
        target.write_bytes(model.SerializeToString(deterministic=True))


def _faithful_trace(module: Any, signature: Signature, tried: list[Sample]) -> Any:
    """A trace that stands for the module: for other values and sizes, and where its Python looks inside tensors.

    Raises:
        CheckFailed: a branch that data decides, or a size, would stay as it was in the trace.
    """
    traced = trace(module, positional(signature, tried[0]))
    for sample in tried:
        given = positional(signature, sample)
        wrong = difference(signature, traced.module(*given), module(*positional(signature, sample)))
        if wrong is not None:
            raise CheckFailed("a trace answers otherwise than the module", found=f"with {sample.what}, {wrong}")
    # What a library looks at (whether a mask is all ones, say) was tried with other values above; the user's own code
    # may decide on values that no sample has.
    own = [look for look in traced.looks if "site-packages" not in look.file]
    objection = export_objects(module, positional(signature, tried[0]), signature) if own else None
    if objection is not None:
        raise CheckFailed(
            "a trace would burn in what data decides", found=f"{first_of_the_users(traced.looks)} ({objection})"
        )
    return traced.module


def _check(target: Path, signature: Signature, opset: int | None, exporter: str) -> None:
    """The file's opset and signature are those that were asked for."""
    found = facts(parse(target), Place(target))
    if opset is not None and found.opset != opset:
        raise CheckFailed(
            "the exporter gave another opset than was asked for", expected=str(opset), found=f"opset {found.opset}"
        )
    require_kept(signature, found.signature, what=f"the file of the exporter {exporter}")


def _reason(error: Exception, folder: Path) -> str:
    """What an exporter could not take, and where in the user's code."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    place = next((text for item in chain if (text := where(item, folder))), "")
    deepest = chain[-1]
    kinds = {type(item).__name__ for item in chain}
    if kinds & {"GuardOnDataDependentSymNode", "DataDependentOutputException"}:
        guard = next((item for item in chain if type(item).__name__ == "GuardOnDataDependentSymNode"), deepest)
        return f"its control flow depends on data{place}: {last_line(guard)}"
    return f"{type(deepest).__name__}{place}: {last_line(deepest)}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters announce their steps and their end of life: none of that is news to whoever reads the log."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
