"""Stands in for Triton's OpenVINO backend: runs ``model.xml`` with the Python package ``openvino``.

The rules follow triton-inference-server/openvino_backend, its README and ``src/openvino.cc``: with ``max_batch_size``
above 0 every run has just that batch, which ENABLE_BATCH_PADDING fills up. What the native backend does wrong with
merged requests (it refuses some full batches) is not imitated. SKIP_OV_DYNAMIC_BATCHSIZE concerns devices that batch
by themselves, which a CPU does not: it is taken and has no effect, there as here.
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
        self.batch = config["max_batch_size"]
        self.padded = _yes(config, "ENABLE_BATCH_PADDING")
        self._validate("input", model.inputs, exact=False)
        self._shape_model(model)
        self._validate("output", model.outputs, exact=True)
        core.set_property("CPU", _properties(config))
        self.request = core.compile_model(model, "CPU").create_infer_request()

    def execute(self, requests):
        return respond(requests, self.config, self._run)

    def _shape_model(self, model):
        """Fix the batch to ``max_batch_size``, as the native backend does, and other axes where it is told to."""
        shapes = {}
        for tensor in self.config["input"]:
            port = _port("input", tensor, model.inputs, self.config)
            shape = port.partial_shape
            first = 1 if self.batch > 0 else 0
            if _yes(self.config, "RESHAPE_IO_LAYERS"):
                shape = ov.PartialShape([*list(shape)[:first], *dims_of(tensor)])
            if self.batch > 0:
                shape[0] = ov.Dimension(self.batch)
                if self.padded and shape.is_dynamic:
                    raise Refused(
                        f"model '{self.config['name']}', input '{tensor['name']}' has dynamic axes besides the batch, "
                        "which ENABLE_BATCH_PADDING cannot fill up"
                    )
            shapes[port] = shape
        try:
            model.reshape(shapes)
        except RuntimeError as error:
            raise Refused(f"model '{self.config['name']}' cannot take these shapes: {error}") from None

    def _validate(self, kind, ports, exact):
        config = self.config
        if kind == "output":
            self.outputs = {}
        for tensor in config[kind]:
            port = _port(kind, tensor, ports, config)
            name = tensor["name"]
            if not port.partial_shape.rank.is_static or port.partial_shape.rank.get_length() == 0:
                raise Refused(f"model '{config['name']}', {kind} '{name}': scalars are not supported")
            if _type(port) != tensor["data_type"]:
                raise Refused(
                    f"unable to load model '{config['name']}', configuration expects datatype "
                    f"{tensor['data_type']} for {kind} '{name}', model provides {_type(port)}"
                )
            if kind == "output" or not _yes(config, "RESHAPE_IO_LAYERS"):
                # The batch is set by the backend itself: only what comes after it is compared.
                shape = [-1, *_shape(port)[1:]] if self.batch > 0 else _shape(port)
                compare_dims(config["name"], name, shape, dims_of(tensor), self.batch, exact)
            if kind == "output":
                # Not the port's own index: that counts the outputs of the node behind it.
                self.outputs[name] = next(place for place, item in enumerate(ports) if name in item.get_names())

    def _run(self, feeds, names):
        rows = next(iter(feeds.values())).shape[0] if self.batch > 0 else 0
        if rows != self.batch:
            if not self.padded:
                raise ValueError(
                    f"expected requests with batch size '{self.batch}', got '{rows}'... this error can be avoided by "
                    "setting 'ENABLE_BATCH_PADDING' parameter in model configuration to 'YES' at a performance cost."
                )
            feeds = {name: _filled(array, self.batch) for name, array in feeds.items()}
        self.request.infer(feeds)
        # A copy: the tensor's memory is used again by the next inference.
        results = {name: np.array(self.request.get_output_tensor(self.outputs[name]).data) for name in names}
        return {name: array[:rows] for name, array in results.items()} if self.batch > 0 else results


def _filled(array, rows):
    return np.concatenate([array, np.zeros((rows - array.shape[0], *array.shape[1:]), array.dtype)])


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
        if hint.upper() not in ("LATENCY", "THROUGHPUT", "CUMULATIVE_THROUGHPUT"):
            raise Refused(
                f"expected the parameter 'PERFORMANCE_HINT' to be LATENCY/THROUGHPUT/CUMULATIVE_THROUGHPUT, got {hint}"
            )
        found["PERFORMANCE_HINT"] = hint.upper()
    bf16 = parameter(config, "HINT_BF16")
    if bf16:
        if bf16.upper() != "YES":
            raise Refused(f"expected the parameter 'HINT_BF16' to be YES, got {bf16}")
        found["INFERENCE_PRECISION_HINT"] = "bf16"
    streams = parameter(config, "NUM_STREAMS")
    if streams is not None:
        if streams.upper() not in ("AUTO", "NUMA") and not streams.isdigit():
            raise Refused(
                f"expected the parameter 'NUM_STREAMS' to be a non-negative number or AUTO/NUMA, got {streams}"
            )
        found["NUM_STREAMS"] = streams.upper()
    return found
