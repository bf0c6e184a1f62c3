"""``torch-to-torchscript``: a PyTorch source as a TorchScript file for Triton's pytorch backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tritonforge.artifact.artifact import Draft
from tritonforge.artifact.signature import Signature
from tritonforge.errors import CheckFailed, Place
from tritonforge.runners.torch_tensors import last_line
from tritonforge.runners.torchscript import MODEL, arguments_of, input_places, output_places
from tritonforge.sources.torch.load import as_positional, load_module
from tritonforge.steps.compile.control_flow import Look, export_objects, first_of_the_users, trace
from tritonforge.steps.compile.plain_archive import normalise
from tritonforge.steps.compile.refusals import refuse_unservable
from tritonforge.steps.compile.samples import Sample, difference, positional, samples
from tritonforge.steps.step import Job, Needs

_WAYS_OUT: Final = (
    "say `pytorch: {method: script}`, or write it with torch.where; `backend: python` serves the module as it is"
)


class TorchToTorchScript:
    """Scripts what has control flow on data, traces everything else, freezes, and compares after each change.

    The configuration has ``method`` (``auto``, ``trace``, ``script``), ``freeze`` and ``optimize``. The same module
    gives the same bytes with one version of PyTorch, unless it is optimised.
    """

    name = "torch-to-torchscript"
    version = 1

    def needs(self, config: Mapping[str, Any], input_bytes: int) -> Needs:
        facets = ("processor",) if config["optimize"] else ()
        return Needs(memory=(1 << 30) + 4 * input_bytes, tools=("torch",), facets=facets)

    def run(self, job: Job) -> Draft:
        import torch

        jit: Any = torch.jit
        torch.set_num_threads(1)
        source = job.inputs["model"]
        signature = source.artifact.signature
        assert signature is not None
        refuse_unservable(signature, texts=True)
        recipe = source.artifact.metadata["recipe"]
        module = load_module(source.folder, recipe)
        tried = samples(signature, source.artifact.metadata)
        work = _Conversion(module, recipe, signature, tried, Place(source.folder))
        made = work.convert(job.config["method"])
        script = work.held(made.module, made.how)
        done = [made.how]
        if job.config["freeze"]:
            script = work.held(_frozen(script), "frozen")
            done.append("frozen")
        if job.config["optimize"]:
            script = work.held(jit.optimize_for_inference(script), "optimised for inference")
            done.append("optimised for inference")
        _check_places(signature, arguments_of(script))
        _save(script, job.out, plain=not job.config["optimize"])
        work.held(jit.load(str(job.out / MODEL), map_location="cpu"), "saved and loaded")
        print(f"{', '.join(done)}: {made.why}")  # noqa: T201 - the step's log
        return Draft(
            "torchscript",
            signature,
            {
                "made_by": f"torch.jit {torch.__version__}, {', '.join(done)}: {made.why}",
                "notes": [*source.artifact.metadata.get("notes", ()), f"{made.how}: {made.why}"],
                "generation": source.artifact.metadata.get("generation"),
            },
        )


@dataclass(frozen=True, slots=True)
class Made:
    """A TorchScript module; ``how`` is a word for it, ``why`` the reason for that way."""

    module: Any
    how: str
    why: str


@dataclass(frozen=True, slots=True)
class _Conversion:
    """One module on its way to TorchScript."""

    module: Any
    recipe: Mapping[str, Any]
    signature: Signature
    samples: list[Sample]
    place: Place

    def convert(self, method: str) -> Made:
        """The module by the method that is asked for.

        Raises:
            CheckFailed: it cannot be traced or scripted; where that lies in the user's code is named.
        """
        import torch

        if isinstance(self.module, torch.jit.ScriptModule):
            return Made(self.wrapped(self.module), "taken as it is", "the source is TorchScript already")
        if method == "script":
            return Made(self.scripted(), "scripted", "the spec asks for it")
        try:
            traced = trace(self.callable(), positional(self.signature, self.samples[0]))
        except Exception as error:  # the user's code raises what it likes
            if method == "auto":
                return Made(self.scripted(), "scripted", f"it cannot be traced: {last_line(error)}")
            raise CheckFailed(
                "the module cannot be traced", place=self.place, found=last_line(error), hint=_WAYS_OUT
            ) from None
        burned = self.burned_in(traced.module, traced.looks)
        if burned is None:
            if not traced.looks:
                return Made(traced.module, "traced", "no control flow depends on data")
            look = first_of_the_users(traced.looks)
            return Made(traced.module, "traced", f"{look}, the same way for all values and sizes (torch.export)")
        if method == "trace":
            raise self.dynamic(traced.looks, burned)
        why = str(first_of_the_users(traced.looks)) if traced.looks else f"a trace answers otherwise: {burned}"
        try:
            return Made(self.scripted(), "scripted", why)
        except CheckFailed as error:
            error.details = (*error.details, f"a trace would be wrong: {why} ({burned})")
            raise

    def burned_in(self, traced: Any, looks: tuple[Look, ...]) -> str | None:
        """What a trace took for constant and is not; None where it stands for the module."""
        wrong = self.differs(traced)
        if wrong is not None:
            return wrong
        if not looks:
            return None
        return export_objects(self.callable(), positional(self.signature, self.samples[0]), self.signature)

    def callable(self) -> Any:
        """The module with the signature's inputs as positional arguments, and a tuple of outputs."""
        return as_positional(self.module, self.recipe, self.signature)

    def scripted(self) -> Any:
        """The module by ``torch.jit.script``."""
        import torch

        try:
            with torch.no_grad():
                return self.wrapped(torch.jit.script(self.module))
        except Exception as error:  # the compiler's own classes, and whatever its reading of the source runs into
            raise CheckFailed(
                "the module cannot be scripted",
                place=self.place,
                found=_script_error(error),
                hint="TorchScript knows a part of Python only: change what is named, or serve it with "
                "`backend: python`, which runs the module as it is",
            ) from None

    def wrapped(self, script: Any) -> Any:
        """The script itself where Triton can call it as it is, else inside a traced call that orders its tensors."""
        import torch

        jit: Any = torch.jit
        names = [tensor.name for tensor in self.signature.inputs]
        arguments = arguments_of(script)
        fits = len(arguments) == len(names) and input_places(names, arguments) == list(range(len(names)))
        if fits and self.differs(script) is None:
            return script
        wrapper = as_positional(script, self.recipe, self.signature)
        with torch.no_grad():
            return jit.trace(wrapper, positional(self.signature, self.samples[0]), check_trace=False)

    def differs(self, converted: Any) -> str | None:
        """How a converted module differs from the source on the first sample where it does."""
        import torch

        reference = self.callable()
        for sample in self.samples:
            with torch.inference_mode():
                try:
                    expected = reference(*positional(self.signature, sample))
                except Exception as error:  # the user's code raises what it likes
                    raise CheckFailed(
                        f"the source cannot answer with {sample.what}",
                        place=self.place,
                        found=last_line(error),
                        hint="declare what its inputs look like under `golden.axes` and `golden.ranges`",
                    ) from None
                try:
                    found = converted(*positional(self.signature, sample))
                    wrong = difference(self.signature, found, expected)
                except Exception as error:  # torch.jit has unrelated classes of its own
                    return f"with {sample.what}: {last_line(error)}"
            if wrong is not None:
                return f"with {sample.what}: {wrong}"
        return None

    def held(self, converted: Any, stage: str) -> Any:
        """``converted``, where it answers as the source does.

        Raises:
            CheckFailed: it does not.
        """
        wrong = self.differs(converted)
        if wrong is not None:
            raise CheckFailed(
                f"the module answers otherwise once it is {stage}",
                place=self.place,
                found=wrong,
                hint="try `pytorch: {freeze: false, optimize: false}`" if stage != "scripted" else _WAYS_OUT,
            )
        return converted

    def dynamic(self, looks: tuple[Look, ...], burned: str) -> CheckFailed:
        """The one error for a trace that is not the module."""
        if not looks:
            return CheckFailed(
                "dynamic control flow under trace: a trace takes for constant what is not",
                place=self.place,
                found=burned,
                hint=_WAYS_OUT,
            )
        look = first_of_the_users(looks)
        return CheckFailed(
            f"dynamic control flow under trace: {look}",
            place=look.place,
            found=burned,
            details=[f"also: {other}" for other in looks if other is not look][:3],
            hint=_WAYS_OUT,
        )


def _frozen(script: Any) -> Any:
    import torch

    try:
        return torch.jit.freeze(script.eval())
    except RuntimeError as error:
        if "already" in str(error) or not hasattr(script, "training"):
            return script  # a source that was frozen by its makers
        raise CheckFailed(
            "TorchScript cannot be frozen", found=last_line(error), hint="say `pytorch: {freeze: false}`"
        ) from None


def _script_error(error: BaseException) -> str:
    """What the compiler says, with the user's line: its first line, and the one that an arrow points to."""
    lines = [line.rstrip() for line in str(error).splitlines() if line.strip()]
    at = next((line.strip() for line in lines if line.strip().startswith('File "')), None)
    said = lines[0].strip() if lines else type(error).__name__
    return said[:300] if at is None else f"{said[:300]} ({at[:200]})"


def _check_places(signature: Signature, arguments: list[str]) -> None:
    """Triton's rules must put every tensor where the module has it."""
    for kind, names, places in (
        ("input", [t.name for t in signature.inputs], input_places([t.name for t in signature.inputs], arguments)),
        ("output", [t.name for t in signature.outputs], output_places([t.name for t in signature.outputs])),
    ):
        if places != list(range(len(names))):
            raise CheckFailed(
                f"Triton would put the {kind}s elsewhere: it reads NAME__INDEX as a position",
                found=", ".join(f"{name} → {place}" for name, place in zip(names, places, strict=True)),
                expected=", ".join(f"{name} → {place}" for place, name in enumerate(names)),
                hint="name them without `__`, or in the order of their indices",
            )


def _save(script: Any, out: Path, *, plain: bool) -> None:
    import torch

    target = out / MODEL
    raw = target if not plain else out / "raw" / MODEL
    raw.parent.mkdir(exist_ok=True)
    try:
        torch.jit.save(script, str(raw))
    except RuntimeError as error:
        raise CheckFailed(
            "the module cannot be saved as TorchScript",
            found=last_line(error),
            hint=None if plain else "say `pytorch: {optimize: false}`: PyTorch cannot save all that it optimises",
        ) from None
    if plain:
        normalise(raw, target)
        raw.unlink()
        raw.parent.rmdir()
