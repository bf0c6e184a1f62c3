"""Stands in for Triton's ONNX Runtime backend: runs ``model.onnx`` with the Python package ``onnxruntime``.

The rules follow triton-inference-server/onnxruntime_backend, ``src/onnxruntime.cc`` and ``onnxruntime_utils.cc``. A
file that ends in ``.ort`` is in ONNX Runtime's own format, which it tells by that ending. CUDA's parameters
(``gpu_mem_limit`` and the like) concern instances on a GPU alone: they are taken and have no effect on a CPU, there as
here.
"""

import json

import numpy as np
import onnxruntime as ort
from standin_config import (
    DTYPES,
    Refused,
    boolean_parameter,
    compare_dims,
    control_inputs,
    default_max_batch_size,
    dims_of,
    integer_parameter,
    model_path,
    parameter,
    path_during_completion,
    refuse,
    shape_text,
)
from standin_requests import respond
from standin_state import states_of

_TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}


class TritonPythonModel:
    """One instance of a model."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config):
        """Complete inputs, outputs, the batch size and dynamic batching where the native backend would."""
        config = auto_complete_model_config.as_dict()
        has_inputs = bool(config.get("input")) or bool(config.get("batch_input"))
        if has_inputs and config.get("output"):
            return auto_complete_model_config
        refuse("onnxruntime", config)
        session = _session(path_during_completion(config, "model.onnx"), config)
        inputs, outputs = _tensors(session.get_inputs()), _tensors(session.get_outputs())
        _complete_batching(config, {**inputs, **outputs})
        if not has_inputs:
            config["input"] = _completed(inputs, config["max_batch_size"])
        if not config.get("output"):
            config["output"] = _completed(outputs, config["max_batch_size"])
        return auto_complete_model_config

    def initialize(self, args):
        self.config = config = json.loads(args["model_config"])
        refuse("onnxruntime", config, args["model_instance_kind"], states=True)
        self.session = _session(model_path(args, config, "model.onnx"), config)
        self.inputs = _tensors(self.session.get_inputs())
        initializers = _tensors(self.session.get_overridable_initializers())
        outputs = _tensors(self.session.get_outputs())
        _validate_inputs(config, self.inputs, initializers)
        _validate_outputs(config, outputs)
        self.inputs.update(initializers)
        # What a rank 0 output is called in the configuration: [1] or [1,1].
        self.scalars = {
            tensor["name"]: dims_of(tensor) for tensor in config["output"] if not outputs[tensor["name"]][1]
        }
        self.options = _run_options(config)
        self.states = states_of(config)

    def execute(self, requests):
        return respond(requests, self.config, self._run, self.states)

    def _run(self, feeds, names):
        ready = {name: self._feed(name, array) for name, array in feeds.items()}
        results = dict(zip(names, self.session.run(list(names), ready, self.options), strict=True))
        for name, dims in self.scalars.items():
            if name in results:
                results[name] = np.asarray(results[name]).reshape(dims)
        return {name: _plain(array) for name, array in results.items()}

    def _feed(self, name, array):
        if array.dtype == object:
            array = _text(name, array)
        return array.reshape(()) if not self.inputs[name][1] else array


def _session(path, config):
    if path.is_dir():
        path = path / "model.onnx"
        if not path.exists():
            raise Refused(f"unable to find '{path}' for model '{config['name']}'")
    providers = ["CPUExecutionProvider"]
    accelerators = (config.get("optimization") or {}).get("execution_accelerators") or {}
    for item in accelerators.get("cpu_execution_accelerator") or []:
        if item.get("name") != "openvino":
            raise Refused(f"unknown Execution Accelerator '{item.get('name')}' is requested")
        if "OpenVINOExecutionProvider" not in ort.get_available_providers():
            raise Refused(
                "the CPU execution accelerator 'openvino' is requested, and this onnxruntime has no "
                "OpenVINOExecutionProvider: install onnxruntime-openvino in its place, or take the accelerator out"
            )
        providers = ["OpenVINOExecutionProvider", *providers]
    session = ort.InferenceSession(str(path), sess_options=_session_options(config), providers=providers)
    if session.get_providers()[0] != providers[0]:
        raise Refused(f"onnxruntime did not take {providers[0]}; it has {', '.join(session.get_providers())}")
    return session


def _session_options(config):
    options = ort.SessionOptions()
    level = int(((config.get("optimization") or {}).get("graph") or {}).get("level", 0))
    options.graph_optimization_level = {
        -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
        2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    }.get(level, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
    mode = integer_parameter(config, "execution_mode")
    if mode not in (0, 1):
        raise Refused(
            f"Invalid configuration value provided. Expected values for execution_mode are 0 or 1 but got {mode} ."
        )
    options.execution_mode = ort.ExecutionMode.ORT_PARALLEL if mode else ort.ExecutionMode.ORT_SEQUENTIAL
    # 0 leaves the choice to ONNX Runtime (one thread a physical core), there as here.
    if integer_parameter(config, "intra_op_thread_count") > 0:
        options.intra_op_num_threads = integer_parameter(config, "intra_op_thread_count")
    if integer_parameter(config, "inter_op_thread_count") > 0:
        options.inter_op_num_threads = integer_parameter(config, "inter_op_thread_count")
    key = "session.use_device_allocator_for_initializers"
    if parameter(config, key) is not None:
        options.add_session_config_entry(key, parameter(config, key))
    options.enable_cpu_mem_arena = boolean_parameter(config, "enable_mem_arena", options.enable_cpu_mem_arena)
    options.enable_mem_pattern = boolean_parameter(config, "enable_mem_pattern", options.enable_mem_pattern)
    for library in (config.get("model_operations") or {}).get("op_library_filename", []):
        options.register_custom_ops_library(library)
    return options


def _run_options(config):
    key = "memory.enable_memory_arena_shrinkage"
    if parameter(config, key) is None:
        return None
    options = ort.RunOptions()
    options.add_run_config_entry(key, parameter(config, key))
    return options


def _tensors(nodes):
    found = {}
    for node in nodes:
        if not node.type.startswith("tensor("):
            raise Refused(f"Unsupported ONNX Type '{node.type}' for I/O '{node.name}', expected a tensor.")
        shape = [dim if isinstance(dim, int) and dim >= 0 else -1 for dim in node.shape or []]
        found[node.name] = (_TYPES.get(node.type, f"TYPE_INVALID ({node.type})"), shape)
    return found


def _complete_batching(config, tensors):
    batchable = all(shape and shape[0] == -1 for _, shape in tensors.values())
    if not batchable:
        if config["max_batch_size"] != 0:
            raise Refused(
                f"autofill failed for model '{config['name']}': model does not support batching while non-zero "
                "max_batch_size is specified"
            )
        return
    if config["max_batch_size"] == 0:
        config["max_batch_size"] = max(default_max_batch_size("onnxruntime"), 0)
    if config["max_batch_size"] > 1 and "sequence_batching" not in config and "dynamic_batching" not in config:
        config["dynamic_batching"] = {}


def _completed(tensors, max_batch_size):
    entries = []
    for name, (datatype, shape) in tensors.items():
        entry = {"name": name, "data_type": datatype, "dims": shape[1:] if max_batch_size > 0 else list(shape)}
        if not entry["dims"]:
            entry["dims"] = [1]
            if max_batch_size > 0:
                entry["reshape"] = {"shape": []}
        entries.append(entry)
    return entries


def _validate_inputs(config, inputs, initializers):
    name = config["name"]
    controls = control_inputs(config)
    states = (config.get("sequence_batching") or {}).get("state") or []
    expected = sum(not tensor.get("optional") for tensor in config["input"]) + len(controls) + len(states)
    if len(inputs) != expected:
        raise Refused(
            f"unable to load model '{name}', configuration expects {expected} inputs, model provides {len(inputs)}: "
            f"{', '.join(inputs) or 'none'}"
        )
    known = {**inputs, **initializers}
    for control, datatype in controls.items():
        if control not in known:
            raise Refused(
                f"configuration specified sequence control '{control}', but model does not provide that input"
            )
        own, shape = known[control]
        rest = shape[1:] if config["max_batch_size"] > 0 else shape
        if rest != [1]:
            raise Refused(
                f"unable to load model '{name}', sequence control '{control}' in model has dims {shape_text(rest)} "
                "but dims [1] is expected"
            )
        if datatype is not None and own != datatype:
            raise Refused(
                f"unable to load model '{name}', sequence control '{control}', the model expects data-type {own} "
                f"but the model configuration specifies data-type {datatype}"
            )
    for tensor in config["input"]:
        if tensor.get("optional") and config["max_batch_size"] != 0:
            raise Refused(
                f"unable to load model '{name}', optional input '{tensor['name']}' is not supported for models "
                "that support batching"
            )
        _validate(config, "input", tensor, known, exact=False)


def _validate_outputs(config, outputs):
    for tensor in config["output"]:
        _validate(config, "output", tensor, outputs, exact=True)


def _validate(config, kind, tensor, known, exact):
    model, name, datatype = config["name"], tensor["name"], tensor["data_type"]
    if name not in known:
        raise Refused(
            f"unexpected inference {kind} '{name}' for model '{model}', allowed {kind}s are: {', '.join(sorted(known))}"
        )
    own, shape = known[name]
    if datatype not in DTYPES:
        raise Refused(f"unsupported datatype {datatype} for {kind} '{name}' for model '{model}'")
    if own != datatype:
        raise Refused(
            f"unable to load model '{model}', configuration expects datatype {datatype} for {kind} '{name}', "
            f"model provides {own}"
        )
    dims = dims_of(tensor)
    if shape:
        compare_dims(model, name, shape, dims, config["max_batch_size"], exact)
    elif any(dim != 1 for dim in dims):
        raise Refused(
            f"unable to load model '{model}', scalar tensor '{name}', should only provide 1 in the model configuration "
            f"when the model doesn't support batching. Model configuration provided: {shape_text(dims)}."
        )


def _text(name, array):
    try:
        flat = [item.decode() if isinstance(item, bytes) else str(item) for item in array.reshape(-1)]
    except UnicodeDecodeError:
        raise ValueError(
            f"input '{name}' holds bytes that are no UTF-8, which onnxruntime's Python interface cannot take"
        ) from None
    out = np.empty(len(flat), dtype=object)
    out[:] = flat
    return out.reshape(array.shape)


def _plain(array):
    if array.dtype != object:
        return array
    out = np.empty(array.size, dtype=object)
    out[:] = [item.encode() if isinstance(item, str) else item for item in array.reshape(-1)]
    return out.reshape(array.shape)
