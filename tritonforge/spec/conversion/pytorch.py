"""What the pytorch backend gets."""

from __future__ import annotations

from typing import Literal

from tritonforge.spec.strict import Strict


class PytorchSpec(Strict):
    """What the pytorch backend gets, or the Python backend that runs PyTorch."""

    method: Literal["auto", "trace", "script"] = "auto"
    """How TorchScript is made. `auto` scripts what has control flow and traces everything else, and says why."""
    freeze: bool = True
    """Make weights constants of the graph, and fold what follows from them."""
    optimize: bool = False
    """`torch.jit.optimize_for_inference`; ties the file to this kind of processor."""
    form: Literal["torchscript", "aoti"] = "torchscript"
    """`aoti` is an AOTInductor package (`.pt2`) for the pytorch backend of newer Triton releases."""
    compile_mode: Literal["off", "default", "reduce-overhead", "max-autotune"] = "default"
    """`torch.compile` in the Python backend (`backend: python`); `off` runs the module as it is."""
