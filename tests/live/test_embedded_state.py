"""Implicit state: the onnxruntime stand-in keeps it as Triton's core does for the native backend; others refuse it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import doubling, onnx_model
from onnx import TensorProto, helper

from tritonforge.errors import CheckFailed
from tritonforge.triton import Client

pytestmark = pytest.mark.live

X = 'input { name: "x" data_type: TYPE_FP32 dims: [2] }\n'
Y = 'output { name: "y" data_type: TYPE_FP32 dims: [2] }\n'
STATE = 'state { input_name: "h" output_name: "h_after" data_type: TYPE_FP32 dims: [2] initial_state { %s } }'
ZERO = 'name: "zero" data_type: TYPE_FP32 dims: [2] zero_data: true'
GROUP = "instance_group { count: %d kind: KIND_CPU }\n"


def summing(*batch: str) -> onnx.ModelProto:
    """``y = h + x``, which is the next ``h`` too."""
    shape = (TensorProto.FLOAT, [*batch, 2])
    nodes = [helper.make_node("Add", ["h", "x"], ["h_after"]), helper.make_node("Identity", ["h_after"], ["y"])]
    return onnx_model(nodes, {"x": shape, "h": shape}, {"y": shape, "h_after": shape})


CONFIGS = {
    "oldest": ("max_batch_size: 4", "oldest { max_candidate_sequences: 8 }", ("n",), 1),
    "direct": ("max_batch_size: 4", "direct { max_queue_delay_microseconds: 100000 }", ("n",), 1),
    "two instances": ("max_batch_size: 2", "oldest { max_candidate_sequences: 8 }", ("n",), 2),
    "no batch": ("", "oldest { max_candidate_sequences: 8 }", (), 1),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_sequences_keep_their_sums_apart(client: Client, write: Any, case: str) -> None:
    name = f"sum_{case.replace(' ', '_')}"
    largest, strategy, batch, count = CONFIGS[case]
    batching = f"sequence_batching {{ {strategy} {STATE % ZERO} }}"
    config = f'backend: "onnxruntime" {largest}\n{X}{Y}{GROUP % count}{batching}'
    write(name, config, {"model.onnx": summing(*batch)})
    client.load(name)

    def whole(number: int) -> None:
        rng, total = np.random.default_rng(number), np.zeros((*(1 for _ in batch), 2), np.float32)
        for step in range(12):
            x = rng.integers(0, 99, total.shape).astype(np.float32)
            total += x
            flags: Any = {"sequence_id": number, "sequence_start": step == 0, "sequence_end": step == 11}
            answer = client.infer(name, {"x": x}, protocol="http" if number % 2 else "grpc", **flags)
            np.testing.assert_array_equal(answer["y"], total)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(whole, range(1, 9)))


def test_the_initial_state_may_come_from_a_file_and_clients_may_ask_for_the_state(client: Client, write: Any) -> None:
    initial = 'name: "from a file" data_type: TYPE_FP32 dims: [2] data_file: "start"'
    shown = 'output { name: "h_after" data_type: TYPE_FP32 dims: [2] }\n'
    batching = f"sequence_batching {{ direct {{ }} {STATE % initial} }}"
    folder = write("from_file", f'backend: "onnxruntime" {X}{Y}{shown}{GROUP % 1}{batching}', {"model.onnx": summing()})
    (folder / "initial_state").mkdir()
    (folder / "initial_state" / "start").write_bytes(np.float32([5, 7]).tobytes())
    client.load("from_file")
    x = np.float32([1, 1])
    first = client.infer("from_file", {"x": x}, sequence_id=3, sequence_start=True)
    assert (first["y"].tolist(), first["h_after"].tolist()) == ([6, 8], [6, 8])
    assert client.infer("from_file", {"x": x}, sequence_id=3, sequence_end=True)["h_after"].tolist() == [7, 9]


@pytest.mark.parametrize("backend", ["openvino", "pytorch"])
def test_other_stand_ins_refuse_it_by_name(client: Client, write: Any, backend: str) -> None:
    config = f'backend: "{backend}" {X}{Y}{GROUP % 1}sequence_batching {{ {STATE % ZERO} }}'
    write(f"state_{backend}", config, {"model.onnx": doubling([2]), "model.pt": b"", "model.xml": ""})
    with pytest.raises(CheckFailed, match="cannot emulate implicit state of sequence models"):
        client.load(f"state_{backend}")
