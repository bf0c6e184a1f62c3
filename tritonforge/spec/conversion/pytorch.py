"""What the pytorch backend gets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tritonforge.spec.strict import Strict

Threads = Annotated[int, Field(ge=1)]


class PytorchSpec(Strict):
    """What the pytorch backend gets, or the Python backend that runs PyTorch."""

    method: Literal["auto", "trace", "script"] = "auto"
    """How TorchScript is made. `auto` scripts what has control flow and traces everything else, and says why."""
    freeze: bool = True
    """Make weights constants of the graph, and fold what follows from them."""
    optimize: bool = False
    """`torch.jit.optimize_for_inference`; ties the file to this kind of processor."""
    form: Literal["torchscript", "aoti"] = "torchscript"
    """`aoti` is an AOTInductor package (`.pt2`) for the pytorch backend of newer Triton releases (26.05 and later). It
    knows its tensors as `INPUT__0` and `OUTPUT__0` alone, and does not batch requests."""
    compile_mode: Literal["off", "default", "reduce-overhead", "max-autotune"] = "default"
    """`torch.compile` in the Python backend (`backend: python`); `off` runs the module as it is."""
    compile_cache: Annotated[str, Field(pattern=r"^/")] | None = None
    """Folder of the server where the Python backend keeps what `torch.compile` made; its temporary folder when
    absent."""
    intra_op_threads: Threads | None = None
    """Threads that one operator may use. PyTorch has one such number in a process: the first model that says it
    decides for all TorchScript models of a server."""
    inter_op_threads: Threads | None = None
    """Threads that run independent parts of one model; likewise."""
    inference_mode: bool | None = None
    """Run without autograd's bookkeeping; on when absent."""
    optimized_execution: bool | None = None
    """Let TorchScript specialise its code while the first requests run, which makes those slow; on when absent."""
    weight_sharing: bool | None = None
    """Let the instances of one device share one copy of the weights; not for modules that change their own state."""
    cache_cleaning: bool | None = None
    """Free the GPU's cached memory after each run: slower, but leaves room for other models."""
    jit_profiling: bool | None = None
    """TorchScript's profiling mode; off helps models with many different shapes."""
    jit_executor: bool | None = None
    """TorchScript's profiling executor; likewise."""
