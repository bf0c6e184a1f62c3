"""A PyTorch module in Triton's Python backend, compiled when it is loaded. Written by tritonforge.

Beside it lie ``forge_torch.py``, ``recipe.json`` and the module's own files. Parameters of ``config.pbtxt``:
``COMPILE_MODE`` (``off``, ``default``, ``reduce-overhead``, ``max-autotune``), ``COMPILE_CACHE`` (a folder to keep
compiled code in), ``INTRA_OP_THREAD_COUNT`` and ``INTER_OP_THREAD_COUNT``.
"""

# mypy: ignore-errors

import importlib.util
import json
from pathlib import Path

import numpy as np
import torch
import triton_python_backend_utils as pb_utils

HERE = Path(__file__).resolve().parent


def _forge_torch():
    spec = importlib.util.spec_from_file_location("forge_torch", HERE / "forge_torch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TritonPythonModel:
    """One instance of the model."""

    def initialize(self, args):
        config = json.loads(args["model_config"])
        said = {name: entry["string_value"] for name, entry in (config.get("parameters") or {}).items()}
        self.batching = config["max_batch_size"] > 0
        self.types = {tensor["name"]: tensor["data_type"] for tensor in (*config["input"], *config["output"])}
        self.outputs = [tensor["name"] for tensor in config["output"]]
        device = "cpu"
        if args["model_instance_kind"] == "GPU":
            device = f"cuda:{args['model_instance_device_id']}"
        self.served = _forge_torch().Served(
            HERE,
            device=device,
            mode=said.get("COMPILE_MODE"),
            cache=said.get("COMPILE_CACHE"),
            threads=_number(said, "INTRA_OP_THREAD_COUNT"),
            interop_threads=_number(said, "INTER_OP_THREAD_COUNT"),
            say=pb_utils.Logger.log_info,
        )

    def execute(self, requests):
        """One response a request; requests of one shape are joined along the batch axis, run once and split."""
        responses = [None] * len(requests)
        groups = {}
        for position, request in enumerate(requests):
            try:
                feeds = {tensor.name(): self._tensor(tensor) for tensor in request.inputs()}
                names = [name for name in self.outputs if name in request.requested_output_names()]
            except Exception as error:
                responses[position] = _failure(error)
                continue
            groups.setdefault(self._key(position, feeds), []).append((position, feeds, names))
        for group in groups.values():
            for position, response in self._run(group):
                responses[position] = response
        return responses

    def _key(self, position, feeds):
        if not self.batching or any(not isinstance(value, torch.Tensor) or value.ndim == 0 for value in feeds.values()):
            return position
        if len({value.shape[0] for value in feeds.values()}) != 1:
            return position
        return tuple(sorted((name, str(value.dtype), tuple(value.shape[1:])) for name, value in feeds.items()))

    def _run(self, group):
        if len(group) == 1:
            position, feeds, names = group[0]
            try:
                answers = self.served.run(feeds)
                rows = self._rows(feeds)
                return [(position, self._response(answers, names, rows))]
            except Exception as error:
                return [(position, _failure(error))]
        try:
            joined = {name: torch.cat([feeds[name] for _, feeds, _ in group]) for name in group[0][1]}
            answers = self.served.run(joined)
            self._check(answers, self.outputs, self._rows(joined))
        except Exception:
            # One bad request must not fail its neighbours.
            return [outcome for one in group for outcome in self._run([one])]
        outcomes, start = [], 0
        for position, feeds, names in group:
            count = self._rows(feeds)
            part = {name: answers[name][start : start + count] for name in names}
            outcomes.append((position, self._response(part, names, count)))
            start += count
        return outcomes

    def _rows(self, feeds):
        if not self.batching:
            return None
        first = next(iter(feeds.values()))
        return first.shape[0] if isinstance(first, torch.Tensor) and first.ndim else None

    def _tensor(self, tensor):
        name = tensor.name()
        if self.types.get(name) == "TYPE_BF16":
            # NumPy has no such type: the bytes go over as they are.
            return torch.utils.dlpack.from_dlpack(tensor.to_dlpack())
        if not tensor.is_cpu():
            return torch.utils.dlpack.from_dlpack(tensor.to_dlpack())
        array = tensor.as_numpy()
        if array.dtype == object:
            return [item.decode() if isinstance(item, bytes) else str(item) for item in array.reshape(-1)]
        return torch.from_numpy(array if array.flags.writeable and array.flags.c_contiguous else array.copy())

    def _response(self, answers, names, rows):
        self._check(answers, names, rows)
        return pb_utils.InferenceResponse(output_tensors=[self._output(name, answers[name]) for name in names])

    def _check(self, answers, names, rows):
        for name in names:
            value = answers[name]
            found = "TYPE_STRING" if isinstance(value, list) else _CONFIG_TYPES.get(value.dtype, str(value.dtype))
            if found != self.types[name]:
                raise ValueError(f"output '{name}': the configuration says {self.types[name]}, the model gave {found}")
            if rows is not None and (isinstance(value, list) or not value.ndim or value.shape[0] != rows):
                shape = [len(value)] if isinstance(value, list) else list(value.shape)
                raise ValueError(f"output '{name}' has the shape {shape} for a batch of {rows}")

    def _output(self, name, value):
        if isinstance(value, list):
            texts = np.empty(len(value), dtype=object)
            texts[:] = [item.encode() for item in value]
            return pb_utils.Tensor(name, texts)
        value = value.detach().cpu().contiguous()
        if value.dtype == torch.bfloat16:
            return pb_utils.Tensor.from_dlpack(name, torch.utils.dlpack.to_dlpack(value))
        return pb_utils.Tensor(name, value.numpy())


_CONFIG_TYPES = {
    torch.bool: "TYPE_BOOL",
    torch.uint8: "TYPE_UINT8",
    torch.uint16: "TYPE_UINT16",
    torch.uint32: "TYPE_UINT32",
    torch.uint64: "TYPE_UINT64",
    torch.int8: "TYPE_INT8",
    torch.int16: "TYPE_INT16",
    torch.int32: "TYPE_INT32",
    torch.int64: "TYPE_INT64",
    torch.float16: "TYPE_FP16",
    torch.float32: "TYPE_FP32",
    torch.float64: "TYPE_FP64",
    torch.bfloat16: "TYPE_BF16",
}


def _number(said, name):
    text = said.get(name)
    if text is None:
        return None
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"parameter '{name}' must be a positive number, not '{text}'")
    return int(text)


def _failure(error):
    lines = [line for line in str(error).splitlines() if line.strip()]
    message = lines[0] if lines else type(error).__name__
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(message))
