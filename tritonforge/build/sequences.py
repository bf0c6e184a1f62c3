"""What the steps of a model with states are configured with."""

from __future__ import annotations

from typing import Any

from tritonforge.build.imports import Importing, golden_axes, golden_ranges


def sequence_config(asked: Importing, format_: str, max_batch_size: int | None) -> dict[str, Any] | None:
    """The configuration that ``stateful`` and ``golden-sequences`` share; None for a model without states.

    ``max_batch_size`` is what the spec states for the platform: with 0 each sequence has the model to itself.
    """
    model = asked.model
    if model.sequence is None:
        return None
    # Of other sources the spec states every tensor, states too: their import reads it.
    told = format_ == "onnx"
    return {
        "sequence": model.sequence.model_dump(mode="json", exclude={"idle_s", "candidates"}),
        "inputs": {key: value.model_dump() for key, value in model.inputs.items()} if told else {},
        "outputs": {key: value.model_dump() for key, value in model.outputs.items()} if told else {},
        "batched": False if max_batch_size == 0 else model.batched if told else None,
        "axes": golden_axes(model),
        "ranges": golden_ranges(model),
    }
