"""Serves a SavedModel in Triton's Python backend. What it loads stands in model.json beside it.

Requests of one batch that have equal shapes run as one. tritonforge wrote this file, and it needs only the packages
of requirements.txt.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


class TritonPythonModel:
    """Triton's interface."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the SavedModel onto the instance's device."""
        import tensorflow as tf
        import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]

        self.triton = pb_utils
        folder = Path(args["model_repository"]) / args["model_version"]
        self.tf = tf
        self.about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        config = json.loads(args["model_config"])
        self.merge = int(config.get("max_batch_size", 0)) > 0
        self.device = "/CPU:0"
        gpus = tf.config.list_physical_devices("GPU")
        if args.get("model_instance_kind") == "GPU" and gpus:
            chosen = gpus[int(args["model_instance_device_id"])]
            tf.config.set_visible_devices([chosen], "GPU")
            tf.config.experimental.set_memory_growth(chosen, True)
            self.device = "/GPU:0"
        else:
            tf.config.set_visible_devices([], "GPU")
        with tf.device(self.device):
            self.model = tf.saved_model.load(str(folder / "model"), tags=self.about["tags"])
        self.function = self.model.signatures[self.about["signature"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        """One answer for each request, in their order."""
        inputs = [self._inputs(request) for request in requests]
        answers: list[Any] = [None] * len(requests)
        groups: dict[Any, list[int]] = {}
        for index, tensors in enumerate(inputs):
            shape = tuple(value.shape[1:] for value in tensors) if self.merge else index
            groups.setdefault(shape, []).append(index)
        for members in groups.values():
            try:
                found = self._run_merged([inputs[index] for index in members])
            except Exception:  # one bad request must not fail those that it was merged with
                found = [self._run_alone(inputs[index]) for index in members]
            for index, outputs in zip(members, found, strict=True):
                answers[index] = self._answer(outputs)
        return answers

    def finalize(self) -> None:
        """Let the model go."""
        self.function = self.model = None

    def _inputs(self, request: Any) -> list[Any]:
        return [self.triton.get_input_tensor_by_name(request, item["name"]).as_numpy() for item in self.about["inputs"]]

    def _run(self, values: list[Any]) -> list[Any]:
        tf = self.tf
        with tf.device(self.device):
            feeds = {
                item["argument"]: tf.constant(value, dtype=tf.as_dtype(item["dtype"]))
                for item, value in zip(self.about["inputs"], values, strict=True)
            }
            found = self.function(**feeds)
        return [np.asarray(found[item["key"]].numpy()) for item in self.about["outputs"]]

    def _run_alone(self, values: list[Any]) -> Any:
        try:
            return self._run(values)
        except Exception as error:
            return error

    def _run_merged(self, requests: list[list[Any]]) -> list[Any]:
        if len(requests) == 1:
            return [self._run_alone(requests[0])]
        found = self._run([np.concatenate(values) for values in zip(*requests, strict=True)])
        ends = np.cumsum([len(values[0]) for values in requests])
        if any(value.ndim == 0 or len(value) != ends[-1] for value in found):
            raise ValueError("an output does not follow the batch")
        parts = [np.split(value, ends[:-1]) for value in found]
        return [list(values) for values in zip(*parts, strict=True)]

    def _answer(self, outputs: Any) -> Any:
        if isinstance(outputs, Exception):
            text = " ".join(str(outputs).split())[:400]
            return self.triton.InferenceResponse(error=self.triton.TritonError(f"TensorFlow: {text}"))
        named = zip(self.about["outputs"], outputs, strict=True)
        return self.triton.InferenceResponse([self.triton.Tensor(item["name"], value) for item, value in named])
