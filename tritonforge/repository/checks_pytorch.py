"""Checks of what the pytorch backend itself asks of a config: AOTInductor packages, which only newer releases know.

Source: triton-inference-server/pytorch_backend, README ("AOT Inductor Support (Beta)") and ``src/pt2``: packages came
with 26.03; since 26.05 their tensors are named by the package's own call specification, as ``INPUT__0``/``OUTPUT__0``
or ``ARGS[0]``/``RESULT[0]``; batching and sequences are not there; BF16 came with 26.11 (server 2.75.0's notes).
"""

from __future__ import annotations

from typing import Final

from tritonforge.repository.pytorch_values import AOTI_PLATFORM
from tritonforge.repository.subject import Subject

AOTI_SINCE: Final = (26, 5)
"""The first release whose rules for names are those that tritonforge writes."""


def check(subject: Subject) -> None:
    """Raises SpecError for the first thing that is wrong."""
    message, platform = subject.message, subject.request.platform
    packaged = message.platform == AOTI_PLATFORM or message.default_model_filename.endswith(".pt2")
    if message.backend != "pytorch" or not packaged:
        return
    # The embedded server's stand-in runs packages, whatever the release of the server around it.
    if not platform.embedded and platform.release < AOTI_SINCE:
        raise subject.wrong(
            ("platform",),
            f"the pytorch backend of platform '{platform.name}' does not know AOTInductor packages",
            expected="Triton 26.05 or later",
            found=f"Triton {platform.triton}",
            hint="say `pytorch: {form: torchscript}` for this model, or serve it with `backend: onnxruntime`",
        )
    if message.max_batch_size > 0:
        raise subject.wrong(
            ("max_batch_size",),
            "the pytorch backend does not batch requests of AOTInductor packages",
            expected="0",
            found=message.max_batch_size,
            hint="say `max_batch_size: 0`: requests then bring their whole shape, with the batch axis",
        )
    if message.HasField("sequence_batching"):
        raise subject.wrong(
            ("sequence_batching",),
            "the pytorch backend has no sequences for AOTInductor packages",
            hint="say `pytorch: {form: torchscript}` for this model",
        )
