"""The settings of the openvino backend, as ``config.pbtxt`` spells them.

Source: triton-inference-server/openvino_backend, ``README.md`` and ``src/openvino.cc``.
"""

from __future__ import annotations

from typing import Any

from tritonforge.artifact.artifact import Artifact
from tritonforge.errors import SpecError
from tritonforge.repository.serving import Serving
from tritonforge.spec.conversion.effective import Conversion


def openvino_values(conversion: Conversion, artifact: Artifact, serving: Serving) -> dict[str, Any]:
    """``parameters``; empty where everything is left to the backend.

    Padded batches keep Triton's dynamic batcher out, unless a config asks for it: the backend mistakes merged requests
    that fill the batch (openvino_backend#115).

    Raises:
        SpecError: a ``max_batch_size`` is asked for, and the backend could serve no other batch.
    """
    spec = conversion.openvino
    signature = artifact.signature
    assert signature is not None
    if serving.max_batch_size and not signature.batched:
        raise SpecError(
            "Triton's openvino backend fixes the batch to `max_batch_size`, and refuses smaller ones",
            place=serving.place("max_batch_size"),
            expected="`max_batch_size: 0`: requests then have any batch size, and are not merged",
            found=f"max_batch_size: {serving.max_batch_size}",
            hint="say `max_batch_size: 0` for this line, or `openvino: {batching: padded}`, which fills every run up",
        )
    said = {
        "INFERENCE_NUM_THREADS": spec.threads,
        "NUM_STREAMS": spec.streams.upper() if isinstance(spec.streams, str) else spec.streams,
        "PERFORMANCE_HINT": None if spec.hint is None else spec.hint.upper(),
        "CPU_EXTENSION_PATH": spec.extension,
        "HINT_BF16": "YES" if spec.bf16 else None,
        "ENABLE_BATCH_PADDING": "YES" if signature.batched else None,
    }
    parameters = {name: {"string_value": str(value)} for name, value in said.items() if value is not None}
    values: dict[str, Any] = {"parameters": parameters} if parameters else {}
    if signature.batched:
        values["dynamic_batching"] = None
    return values
