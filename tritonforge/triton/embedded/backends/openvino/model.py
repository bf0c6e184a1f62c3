"""Stands in for Triton's OpenVINO backend: runs ``model.xml`` with the Python package ``openvino``.

The rules follow triton-inference-server/openvino_backend, its README and ``src/openvino.cc``.
"""

import json

import numpy as np
from standin_config import (
    Refused,
    compare_dims,
    default_max_batch_size,
    dims_of,
    model_path,
    parameter,
    path_during_completion,
    refuse,
)
from standin_requests import respond

try:
    import openvino as ov
except ImportError as error:
    raise ImportError(
        f"the stand-in for the openvino backend needs the package openvino, which cannot be imported here ({error}): "
        "install openvino beside tritonforge"
    ) from None

_TYPES = {
    "boolean": "TYPE_BOOL",
    "u8": "TYPE_UINT8",
    "u16": "TYPE_UINT16",
    "u32": "TYPE_UINT32",
    "u64": "TYPE_UINT64",
    "i8": "TYPE_INT8",
    "i16": "TYPE_INT16",
    "i32": "TYPE_INT32",
    "i64": "TYPE_INT64",
    "f16": "TYPE_FP16",
    "f32": "TYPE_FP32",
    "f64": "TYPE_FP64",
}


class TritonPythonModel:
    """One instance of a model."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config):
        """Complete what the native backend would; the batch size only where every layout names its batch axis."""
        config = auto_complete_model_config.as_dict()
        if config.get("input") and config.get("output"):
            return auto_complete_model_config
        refuse("openvino", config)
        model = ov.Core().read_model(str(path_during_completion(config, "model.xml")))
        if config["max_batch_size"] == 0 and all(_batch_first(port) for port in [*model.inputs, *model.outputs]):
            config["max_batch_size"] = max(default_max_batch_size("openvino"), 0)
        if config["max_batch_size"] > 1 and "sequence_batching" not in config and "dynamic_batching" not in config:
            config["dynamic_batching"] = {}
        skip = 1 if config["max_batch_size"] > 0 else 0
        for key, ports in (("input", model.inputs), ("output", model.outputs)):
            if not config.get(key):
                config[key] = [
                    {"name": port.any_name, "data_type": _type(port), "dims": _shape(port)[skip:]} for port in ports
                ]
        return auto_complete_model_config

    def initialize(self, args):
        self.config = config = json.loads(args["model_config"])
        refuse("openvino", config, args["model_instance_kind"])
        core = ov.Core()
        if parameter(config, "CPU_EXTENSION_PATH"):
            core.add_extension(parameter(config, "CPU_EXTENSION_PATH"))
        model = core.read_model(str(model_path(args, config, "model.xml")))
        if len(model.inputs) != len(config["input"]):
            raise Refused(
                f"unable to load model '{config['name']}', configuration expects {len(config['input'])} inputs, model "
                f"provides {len(model.inputs)}: {', '.join(port.any_name for port in model.inputs)}"
            )
        self._shape_model(model, config)
        self._validate(model, config)
        self.request = core.compile_model(model, "CPU", _properties(config)).create_infer_request()

    def execute(self, requests):
        return respond(requests, self.config, self._run)

    def _shape_model(self, model, config):
        batched = config["max_batch_size"] > 0
        shapes = {}
        for tensor in config["input"]:
            port = _port("input", tensor, model.inputs, config)
            if not port.partial_shape.rank.is_static or port.partial_shape.rank.get_length() == 0:
                raise Refused(f"model '{config['name']}', input '{tensor['name']}': scalars are not supported")
            if _yes(config, "RESHAPE_IO_LAYERS"):
                shapes[port] = ov.PartialShape(([-1] if batched else []) + dims_of(tensor))
            elif batched and not _yes(config, "SKIP_OV_DYNAMIC_BATCHSIZE"):
                shape = port.partial_shape
                shape[0] = ov.Dimension(-1)
                shapes[port] = shape
        if shapes:
            try:
                model.reshape(shapes)
            except RuntimeError as error:
                raise Refused(f"model '{config['name']}' cannot take these shapes: {error}") from None

    def _validate(self, model, config):
        self.outputs = {}
        for kind, ports, exact in (("input", model.inputs, False), ("output", model.outputs, True)):
            for tensor in config[kind]:
                port = _port(kind, tensor, ports, config)
                if _type(port) != tensor["data_type"]:
                    raise Refused(
                        f"unable to load model '{config['name']}', configuration expects datatype "
                        f"{tensor['data_type']} for {kind} '{tensor['name']}', model provides {_type(port)}"
                    )
                batch = config["max_batch_size"]
                if not (batch > 0 and _yes(config, "SKIP_OV_DYNAMIC_BATCHSIZE")):
                    compare_dims(config["name"], tensor["name"], _shape(port), dims_of(tensor), batch, exact)
                if kind == "output":
                    self.outputs[tensor["name"]] = port.index

    def _run(self, feeds, names):
        self.request.infer(feeds)
        # A copy: the tensor's memory is used again by the next inference.
        return {name: np.array(self.request.get_output_tensor(self.outputs[name]).data) for name in names}


def _port(kind, tensor, ports, config):
    for port in ports:
        if tensor["name"] in port.get_names():
            return port
    raise Refused(
        f"unexpected inference {kind} '{tensor['name']}' for model '{config['name']}', allowed {kind}s are: "
        + ", ".join(sorted(port.any_name for port in ports))
    )


def _type(port):
    return _TYPES.get(port.element_type.get_type_name(), "TYPE_INVALID")


def _shape(port):
    return [dim.get_length() if dim.is_static else -1 for dim in port.partial_shape]


def _batch_first(port):
    layout = port.node.layout
    return layout.has_name("N") and layout.get_index_by_name("N") == 0


def _yes(config, key):
    return (parameter(config, key) or "").lower() == "yes"


def _properties(config):
    found = {}
    for key in ("INFERENCE_NUM_THREADS", "COMPILATION_NUM_THREADS"):
        value = parameter(config, key)
        if value is not None:
            if not value.isdigit():
                raise Refused(f"expected the parameter '{key}' to be a non-negative number, got {value}")
            found[key] = int(value)
    hint = parameter(config, "PERFORMANCE_HINT")
    if hint is not None:
        if hint.upper() not in ("LATENCY", "THROUGHPUT"):
            raise Refused(f"expected the parameter 'PERFORMANCE_HINT' to be LATENCY/THROUGHPUT, got {hint}")
        found["PERFORMANCE_HINT"] = hint.upper()
    if _yes(config, "HINT_BF16"):
        found["INFERENCE_PRECISION_HINT"] = "bf16"
    streams = parameter(config, "NUM_STREAMS")
    if streams is not None:
        if streams.upper() not in ("AUTO", "NUMA") and not streams.isdigit():
            raise Refused(
                f"expected the parameter 'NUM_STREAMS' to be a non-negative number or AUTO/NUMA, got {streams}"
            )
        found["NUM_STREAMS"] = streams.upper()
    return found
