"""A model's sequences in the words of ``config.pbtxt``.

Source: Triton ``docs/user_guide/implicit_state_management.md`` and ``architecture.md`` (Stateful Models, Oldest).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tritonforge.artifact.datatypes import data_type
from tritonforge.errors import Place, SpecError
from tritonforge.spec.sequence import SequenceSpec

_KINDS: Final = {
    "start": "CONTROL_SEQUENCE_START",
    "end": "CONTROL_SEQUENCE_END",
    "ready": "CONTROL_SEQUENCE_READY",
    "correlation": "CONTROL_SEQUENCE_CORRID",
}
_FLAGS: Final = {"INT32": "int32_false_true", "FP32": "fp32_false_true", "BOOL": "bool_false_true"}


def sequence_values(sequence: SequenceSpec, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """``sequence_batching`` for an artifact with states, which ``metadata`` lists.

    The strategy is ``oldest``: it batches whatever sequences have a request, where ``direct`` fills the slots of idle
    ones with requests that nobody sent. Each state is zero where a sequence starts: without an ``initial_state`` Triton
    hands over memory as it found it (core, ``SequenceStates::Initialize``).
    """
    states = []
    for state in metadata["states"]:
        kind = data_type(state["datatype"]).config
        dims = list(state["dims"]) or [1]
        zero = {"name": "zero", "data_type": kind, "dims": dims, "zero_data": True}
        states.append(
            {
                "input_name": state["input"],
                "output_name": state["output"],
                "data_type": kind,
                "dims": dims,
                "initial_state": [zero],
            }
        )
    values: dict[str, Any] = {
        "max_sequence_idle_microseconds": round(sequence.idle_s * 1e6),
        "oldest": {"max_candidate_sequences": sequence.candidates},
    }
    if metadata.get("controls"):
        values["control_input"] = [
            {"name": control["name"], "control": [_control(control["kind"], control["datatype"])]}
            for control in metadata["controls"]
        ]
    if states:
        values["state"] = states
    return {"sequence_batching": values}


def require_batch(message: Any, metadata: Mapping[str, Any], place: Place) -> None:
    """Refuse a config without batching for an artefact whose states have a batch axis.

    Raises:
        SpecError: it has one; the states would have another rank than Triton keeps.
    """
    if metadata.get("sequence_batched") and message.max_batch_size == 0:
        raise SpecError(
            "the states of this model were given a batch axis, and its config has no batching",
            place=place,
            expected="max_batch_size of 1 or more",
            found="max_batch_size: 0",
            hint="say `batched: false` or the model's own `max_batch_size: 0`: its states are then made without one",
        )


def _control(kind: str, datatype: str) -> dict[str, Any]:
    if kind == "correlation":
        return {"kind": _KINDS[kind], "data_type": data_type(datatype).config}
    return {"kind": _KINDS[kind], _FLAGS[datatype]: [False, True] if datatype == "BOOL" else [0, 1]}
