from __future__ import annotations

from pathlib import Path

import pytest

from tritonforge.artifact.signature import Signature
from tritonforge.errors import Place, SpecError
from tritonforge.repository.config import generate
from tritonforge.repository.sequence_values import require_batch, sequence_values
from tritonforge.spec.sequence import SequenceSpec

from .making import CPU, layer, made, request, signature, tensor

MODEL = signature(
    {"input": "FP32[512]", "state_batched": "FP32[2,128]", "input_context": "FP32[64]", "START": "BOOL[1]"},
    {"output": "FP32[1]", "state_batched_next": "FP32[2,128]", "input_context_next": "FP32[64]"},
)
METADATA = {
    "sequence_batched": True,
    "states": [
        {"input": "state_batched", "output": "state_batched_next", "datatype": "FP32", "dims": [2, 128]},
        {"input": "input_context", "output": "input_context_next", "datatype": "FP32", "dims": [64]},
    ],
    "controls": [{"kind": "start", "name": "START", "datatype": "BOOL"}],
}
SPEC = SequenceSpec.model_validate({"states": {"state": "stateN"}, "context": {"input": 64}, "idle_s": 2.5})

TEXT = """\
name: "m"
max_batch_size: 8
input {
  name: "input"
  data_type: TYPE_FP32
  dims: [512]
}
output {
  name: "output"
  data_type: TYPE_FP32
  dims: [1]
}
instance_group {
  count: 1
  kind: KIND_CPU
}
sequence_batching {
  max_sequence_idle_microseconds: 2500000
  control_input {
    name: "START"
    control {
      bool_false_true: [false, true]
    }
  }
  oldest {
    max_candidate_sequences: 1024
  }
  state {
    input_name: "state_batched"
    output_name: "state_batched_next"
    data_type: TYPE_FP32
    dims: [2, 128]
    initial_state {
      data_type: TYPE_FP32
      dims: [2, 128]
      zero_data: true
      name: "zero"
    }
  }
  state {
    input_name: "input_context"
    output_name: "input_context_next"
    data_type: TYPE_FP32
    dims: [64]
    initial_state {
      data_type: TYPE_FP32
      dims: [64]
      zero_data: true
      name: "zero"
    }
  }
}
backend: "onnxruntime"
"""


def test_the_config_is_the_native_backends_and_clients_see_no_states() -> None:
    assert made(sequence_values(SPEC, METADATA), signature=MODEL, max_batch_size=8).text == TEXT


def test_the_users_own_config_comes_over_it() -> None:
    own = layer({"sequence_batching": {"direct": {"max_queue_delay_microseconds": 5}}})
    derived = layer(sequence_values(SPEC, METADATA), "`sequence` in the spec")
    config = generate(request(signature=MODEL, max_batch_size=8, layers=(derived, own))).message.sequence_batching
    assert config.WhichOneof("strategy_choice") == "direct"
    assert len(config.state) == 2


def test_states_with_a_batch_axis_want_a_config_with_batching() -> None:
    place = Place(Path("forge.yaml"), 3)
    message = made(sequence_values(SPEC, METADATA), signature=MODEL, max_batch_size=8).message
    require_batch(message, METADATA, place)
    message.max_batch_size = 0
    require_batch(message, {}, place)
    with pytest.raises(SpecError, match="given a batch axis") as raised:
        require_batch(message, METADATA, place)
    assert raised.value.place == place


def test_states_that_core_would_swap_are_refused() -> None:
    model = Signature(
        (tensor("x", "FP32[1]"), tensor("a", "FP32[1]"), tensor("b", "FP32[1]")),
        (tensor("y", "FP32[1]"), tensor("z", "FP32[1]"), tensor("c", "FP32[1]")),
        True,
    )
    pairs = [("a", "z"), ("b", "c")]
    states = [
        {"input_name": name, "output_name": after, "data_type": "TYPE_FP32", "dims": [1]} for name, after in pairs
    ]
    with pytest.raises(SpecError, match="give these states to each other's inputs") as raised:
        made({"sequence_batching": {"state": states}}, signature=model, platform=CPU)
    assert raised.value.found == "'a' has the output 'z', and would get 'c'"
    straight = [{**states[0], "output_name": "c"}, {**states[1], "output_name": "z"}]
    made({"sequence_batching": {"state": straight}}, signature=model, platform=CPU)
