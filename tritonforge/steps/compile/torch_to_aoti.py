"""``torch-to-aoti``: a PyTorch source as an AOTInductor package, machine code that runs without Python.

Source of what Triton makes of it: triton-inference-server/pytorch_backend, README ("AOT Inductor Support").
"""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from tritonforge.artifact.artifact import Draft
from tritonforge.artifact.signature import Signature
from tritonforge.errors import CheckFailed, EnvironmentLacks, Place
from tritonforge.runners.aoti import MODEL
from tritonforge.runners.torch_tensors import last_line
from tritonforge.sources.torch.load import as_positional, load_module
from tritonforge.steps.compile.export_graph import dynamic_shapes
from tritonforge.steps.compile.refusals import refuse_unservable
from tritonforge.steps.compile.samples import difference, positional, samples
from tritonforge.steps.step import Job, Needs


class TorchToAoti:
    """Exports the module with its dynamic axes, compiles it for this processor, and compares at other sizes.

    Triton knows the tensors of a package by position alone: the artifact's signature has ``INPUT__0``, ``OUTPUT__0``,
    … and ``metadata["names"]`` says which tensor of the source each is. It does not batch requests of packages, so
    that a batch axis is an ordinary dynamic one.
    """

    name = "torch-to-aoti"
    version = 1

    def needs(self, config: Mapping[str, Any], input_bytes: int) -> Needs:
        return Needs(memory=(2 << 30) + 4 * input_bytes, tools=("torch",), facets=("processor", "libc"))

    def run(self, job: Job) -> Draft:
        import torch

        compiler = os.environ.get("CXX") or "g++"
        if shutil.which(compiler) is None:
            raise EnvironmentLacks(
                f"AOTInductor compiles with {compiler}, which is not here",
                hint="install a C++ compiler (`apt-get install g++`), or name one in CXX; `pytorch: {form: "
                "torchscript}` needs none",
            )
        torch.set_num_threads(1)
        source = job.inputs["model"]
        signature = source.artifact.signature
        assert signature is not None
        refuse_unservable(signature, texts=False)
        recipe, place = source.artifact.metadata["recipe"], Place(source.folder)
        module = as_positional(load_module(source.folder, recipe), recipe, signature)
        tried = samples(signature, source.artifact.metadata)
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                graph = torch.export.export(
                    module, positional(signature, tried[0]), dynamic_shapes=dynamic_shapes(signature), strict=False
                )
        except Exception as error:  # torch.export raises classes of many of its own layers
            raise CheckFailed(
                "torch.export cannot make one graph of the module",
                place=place,
                found=_first_line(error),
                details=_where(error),
                hint="write control flow on data with torch.where or torch.cond, or serve the module as it is with "
                "`backend: python`",
            ) from None
        target = job.out / MODEL
        with _private_cache(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                torch._inductor.aoti_compile_and_package(graph, package_path=str(target))
            except Exception as error:  # a compiler's error, in one of the inductor's classes
                raise CheckFailed(
                    "AOTInductor cannot compile the module",
                    place=place,
                    found=_first_line(error),
                    hint="say `pytorch: {form: torchscript}`, or serve it with `backend: onnxruntime`",
                ) from None
            package = torch._inductor.aoti_load_package(str(target))
        for sample in tried:
            arguments = positional(signature, sample)
            with torch.inference_mode():
                expected = module(*arguments)
                try:
                    wrong = difference(signature, package(*arguments), expected)
                except (RuntimeError, ValueError, TypeError) as error:
                    wrong = last_line(error)
            if wrong is not None:
                raise CheckFailed(
                    f"the package answers otherwise than the module with {sample.what}", place=place, found=wrong
                )
        served, names = by_position(signature)
        notes = list(source.artifact.metadata.get("notes", ()))
        if any(name != given for side in names.values() for name, given in side.items()):
            notes.append("Triton's pytorch backend knows the tensors of a package as INPUT__0, OUTPUT__0, … alone")
        return Draft(
            "aoti",
            served,
            {
                "file": MODEL,
                "made_by": f"AOTInductor {torch.__version__}, for {_processor()}",
                "names": names,
                "notes": notes,
                "generation": source.artifact.metadata.get("generation"),
            },
        )


def by_position(signature: Signature) -> tuple[Signature, dict[str, dict[str, str]]]:
    """The signature as Triton serves a package, and the served name of each tensor of the source."""
    inputs = {tensor.name: f"INPUT__{place}" for place, tensor in enumerate(signature.inputs)}
    outputs = {tensor.name: f"OUTPUT__{place}" for place, tensor in enumerate(signature.outputs)}
    served = Signature(
        tuple(replace(tensor, name=inputs[tensor.name]) for tensor in signature.inputs),
        tuple(replace(tensor, name=outputs[tensor.name]) for tensor in signature.outputs),
        batched=False,
    )
    return served, {"inputs": inputs, "outputs": outputs}


@contextmanager
def _private_cache() -> Iterator[None]:
    """The inductor's files in a folder of this run: nothing of an earlier one is taken, nothing stays."""
    import torch._inductor.config as inductor

    before = {name: os.environ.get(name) for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")}
    with tempfile.TemporaryDirectory(prefix="tritonforge-aoti-") as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        threads, inductor.compile_threads = inductor.compile_threads, 1
        try:
            yield
        finally:
            inductor.compile_threads = threads
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:400]


def _where(error: BaseException) -> list[str]:
    """The user's own line, where torch.export names it."""
    lines = [line.strip() for line in str(error).splitlines()]
    named = [line for line in lines if ('File "' in line and "site-packages" not in line) or line.startswith("(")]
    return [line[:200] for line in named[-1:]]


def _processor() -> str:
    import torch

    return f"{torch.backends.cpu.get_cpu_capability()} processors"
