"""Stands in for Triton's PyTorch backend, with the Python package ``torch``.

It runs the TorchScript file ``model.pt``, or an AOTInductor package. The native backend tells a package by the platform
``torch_aoti``, which the core of 24.10 refuses beside a backend: here its name (``model.pt2``) is enough.
The rules follow triton-inference-server/pytorch_backend, ``src/libtorch.cc`` and ``src/pt2``; it never completes a
configuration.
"""

import contextlib
import json

import numpy as np
from standin_config import (
    Refused,
    boolean_parameter,
    control_inputs,
    dims_of,
    integer_parameter,
    model_path,
    parameter,
    refuse,
)
from standin_requests import respond

try:
    import torch
except ImportError as error:
    raise ImportError(
        f"the stand-in for the pytorch backend needs the package torch, which cannot be imported here ({error}): "
        "install torch beside tritonforge"
    ) from None

_SUPPORTED = (
    "TYPE_BOOL",
    "TYPE_UINT8",
    "TYPE_INT8",
    "TYPE_INT16",
    "TYPE_INT32",
    "TYPE_INT64",
    "TYPE_FP16",
    "TYPE_FP32",
    "TYPE_FP64",
    "TYPE_STRING",
)
_SILENT_ON_A_CPU = ("ENABLE_WEIGHT_SHARING", "ENABLE_CACHE_CLEANING", "CACHE_CLEANING_ENABLED", "ENABLE_NVFUSER")
_AOTI = "torch_aoti"


class TritonPythonModel:
    """One instance of a model."""

    def initialize(self, args):
        self.config = config = json.loads(args["model_config"])
        refuse("pytorch", config, args["model_instance_kind"])
        if config.get("platform") not in ("", None, "pytorch_libtorch", _AOTI):
            raise Refused(f"the stand-in for the pytorch backend cannot run the platform '{config['platform']}'")
        self.packaged = config.get("platform") == _AOTI or config["default_model_filename"].endswith(".pt2")
        path = model_path(args, config, "model.pt2" if self.packaged else "model.pt")
        self._apply_parameters(config)
        if self.packaged:
            self._load_package(config, path)
            return
        with self._mode():
            try:
                self.model = torch.jit.load(str(path), map_location="cpu")
            except (RuntimeError, ValueError) as error:
                raise Refused(f"failed to load model '{config['name']}': {error}") from None
        self._map_inputs(config)
        self._map_outputs(config)

    def execute(self, requests):
        return respond(requests, self.config, self._run)

    def _apply_parameters(self, config):
        for name in _SILENT_ON_A_CPU:
            boolean_parameter(config, name)
        for name, setter in (
            ("INTRA_OP_THREAD_COUNT", torch.set_num_threads),
            ("INTER_OP_THREAD_COUNT", torch.set_num_interop_threads),
        ):
            count = integer_parameter(config, name)
            if count < 0:
                raise Refused(f"parameter '{name}' must be a positive number, got {count}")
            if count > 0:
                setter(count)
        # Nothing changes unless the parameter is given, as in the native backend.
        for name, switch in (
            ("ENABLE_TENSOR_FUSER", "_jit_set_texpr_fuser_enabled"),
            ("ENABLE_JIT_PROFILING", "_jit_set_profiling_mode"),
            ("ENABLE_JIT_EXECUTOR", "_jit_set_profiling_executor"),
        ):
            if parameter(config, name) is not None:
                if not hasattr(torch._C, switch):
                    raise Refused(f"this torch ({torch.__version__}) has no switch for the parameter '{name}'")
                getattr(torch._C, switch)(boolean_parameter(config, name))
        self.optimized = not boolean_parameter(config, "DISABLE_OPTIMIZED_EXECUTION")
        self.inference_mode = boolean_parameter(config, "INFERENCE_MODE", True)

    def _load_package(self, config, path):
        """As ``src/pt2/model_state.cc``: names come from the package's call specification, or are positions."""
        if config["max_batch_size"] > 0 or config.get("sequence_batching"):
            raise Refused(
                f"model '{config['name']}': the pytorch backend supports neither batching nor sequences for the "
                f"platform '{_AOTI}'"
            )
        try:
            with self._mode():
                self.model = torch._inductor.aoti_load_package(str(path))
        except (RuntimeError, OSError, AttributeError) as error:
            raise Refused(f"failed to load model '{config['name']}': {error}") from None
        taken, given = (json.loads(text)[1] for text in self.model.loader.get_call_spec())
        self.takes_dictionary = False
        self.inputs = _package_places(config, "input", _package_inputs(taken), "INPUT")
        self.outputs = _package_places(config, "output", _spec_names(given, "RESULT"), "OUTPUT")
        if len(self.inputs) != len(_package_inputs(taken)):
            raise Refused(
                f'Failed to load model "{config["name"]}" configuration expects {len(self.inputs)} inputs, but model '
                f"expects {len(_package_inputs(taken))} inputs."
            )

    @contextlib.contextmanager
    def _mode(self):
        with torch.jit.optimized_execution(self.optimized), torch.inference_mode(self.inference_mode), torch.no_grad():
            yield

    def _map_inputs(self, config):
        arguments = [a for a in self.model.forward.schema.arguments if a.name != "self"]
        controls = control_inputs(config)
        names = [tensor["name"] for tensor in config["input"]]
        if not names:
            raise Refused("model configuration must contain at least one input, none were specified.")
        self.takes_dictionary = len(arguments) == 1 and arguments[0].type.kind() == "DictType"
        if not self.takes_dictionary:
            for argument in arguments:
                if argument.type.kind() not in ("TensorType", "ListType"):
                    raise Refused(
                        f"An input of type '{argument.type}' was detected in the model. Only a single input of type "
                        "Dict(str, Tensor) or input(s) of type Tensor are supported."
                    )
            expected = len(names) + len(controls)
            if len(arguments) != expected:
                raise Refused(
                    f"unable to load model '{config['name']}', configuration expects {expected} inputs, model provides "
                    f"{len(arguments)}: {', '.join(a.name for a in arguments)}"
                )
        allowed = [argument.name for argument in arguments]
        if all(name in allowed for name in names) and not self.takes_dictionary:
            self.inputs = {name: allowed.index(name) for name in names}
        else:
            self.inputs = _by_index(names) or {name: place for place, name in enumerate(names)}
        for control in controls:
            place = _by_index([control])
            if place is None:
                raise Refused(f"input '{control}' does not follow <name>__<index> naming convention.")
            self.inputs.update(place)
        for tensor in config["input"]:
            _validate("input", tensor, config)

    def _map_outputs(self, config):
        names = [tensor["name"] for tensor in config["output"]]
        if not names:
            raise Refused("model configuration must contain at least one output, none were specified.")
        self.outputs = _by_index(names) or {name: place for place, name in enumerate(names)}
        for tensor in config["output"]:
            _validate("output", tensor, config)

    def _run(self, feeds, names):
        ready = {name: _to_torch(name, array) for name, array in feeds.items()}
        with self._mode():
            if self.takes_dictionary:
                answer = self.model(ready)
            else:
                ordered = sorted(ready, key=self.inputs.__getitem__)
                if [self.inputs[name] for name in ordered] != list(range(len(ordered))):
                    raise ValueError("the inputs' indices are not 0, 1, 2, …: " + ", ".join(sorted(ready)))
                answer = self.model(*[ready[name] for name in ordered])
        results = _flatten(answer)
        found = {}
        for name, place in self.outputs.items():
            if not 0 <= place < len(results):
                raise ValueError(
                    f"The output {name} in the model configuration refers to an output index which doesn't exist. "
                    f"This model has {len(results)} outputs"
                )
            if name in names:
                found[name] = _to_numpy(results[place])
        return found


def _package_inputs(spec):
    arguments, keywords = spec["children_spec"]
    return _spec_names(arguments, "ARGS") + _spec_names(keywords, "KWARGS")


def _spec_names(spec, prefix):
    """The names of all tensors in one part of a call specification: ``ARGS[0]``, ``RESULT[key][1]``."""
    if spec["type"] is None:
        return [prefix]
    keys = json.loads(spec["context"]) if spec["type"].endswith("dict") else range(len(spec["children_spec"]))
    return [
        name
        for key, child in zip(keys, spec["children_spec"], strict=True)
        for name in _spec_names(child, f"{prefix}[{key}]")
    ]


def _package_places(config, kind, names, prefix):
    places = {name: place for place, name in enumerate(names)}
    places.update({f"{prefix}__{place}": place for place in range(len(names))})
    found = {}
    for tensor in config[kind]:
        if tensor["name"] not in places:
            raise Refused(
                f'{kind.capitalize()} "{tensor["name"]}" for model instance "{config["name"]}" is not found in '
                f"model {kind} map."
            )
        if tensor["data_type"] == "TYPE_STRING" or tensor["data_type"] not in _SUPPORTED:
            raise Refused(
                f'Unsupported datatype {tensor["data_type"]} for {kind} "{tensor["name"]}" for model instance '
                f'"{config["name"]}".'
            )
        found[tensor["name"]] = places[tensor["name"]]
    if not found:
        raise Refused(f"model configuration must contain at least one {kind}, none were specified.")
    return found


def _by_index(names):
    places = {}
    for name in names:
        _, mark, index = name.partition("__")
        if not mark or (index and not index.isdigit()):
            return None
        places[name] = int(index or 0)
    return places


def _validate(kind, tensor, config):
    if tensor["data_type"] not in _SUPPORTED:
        raise Refused(
            f"unsupported datatype {tensor['data_type']} for {kind} '{tensor['name']}' for model '{config['name']}'"
        )
    rank = len(dims_of(tensor)) + (1 if config["max_batch_size"] > 0 else 0)
    if tensor["data_type"] == "TYPE_STRING" and rank > 1:
        raise Refused(
            f"Triton only supports 1 dimensional List of String as {kind} for '{tensor['name']}' for model "
            f"'{config['name']}'"
        )


def _to_torch(name, array):
    if array.dtype == object:
        try:
            return [item.decode() if isinstance(item, bytes) else str(item) for item in array.reshape(-1)]
        except UnicodeDecodeError:
            raise ValueError(f"input '{name}' holds bytes that are no UTF-8, which a List[str] cannot hold") from None
    # Not from_numpy: torch may be built for another major version of NumPy than the one that is here.
    return torch.utils.dlpack.from_dlpack(array if array.flags.writeable else array.copy())


def _to_numpy(value):
    if isinstance(value, list):
        out = np.empty(len(value), dtype=object)
        out[:] = [item.encode() for item in value]
        return out
    return np.from_dlpack(value.detach().resolve_conj().resolve_neg().contiguous())


def _flatten(answer):
    if isinstance(answer, torch.Tensor):
        return [answer]
    if isinstance(answer, tuple):
        for place, item in enumerate(answer):
            if not (isinstance(item, torch.Tensor) or _is_text(item)):
                raise ValueError(
                    f"output at index {place} must be of type Tensor or List[str], received {type(item).__name__}"
                )
        return list(answer)
    if _is_text(answer):
        return [answer]
    raise ValueError(
        "output must be of type Tensor, List[str] or Tuple containing one of these two types. It should not be a "
        "List / Dictionary of Tensors or a Scalar"
    )


def _is_text(value):
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
