"""What the stand-in backends share: reading a model's configuration, and refusing what cannot be emulated."""

import os
from pathlib import Path

DTYPES = {
    "TYPE_BOOL": "bool",
    "TYPE_UINT8": "uint8",
    "TYPE_UINT16": "uint16",
    "TYPE_UINT32": "uint32",
    "TYPE_UINT64": "uint64",
    "TYPE_INT8": "int8",
    "TYPE_INT16": "int16",
    "TYPE_INT32": "int32",
    "TYPE_INT64": "int64",
    "TYPE_FP16": "float16",
    "TYPE_FP32": "float32",
    "TYPE_FP64": "float64",
    "TYPE_STRING": "object",
}


class Refused(Exception):
    """The model cannot be loaded; the message is what the server reports."""


def refuse(backend, config, kind="CPU", states=False):
    """Refuse by name what the embedded server's Python code cannot do as the native backend would.

    ``states``: whether this stand-in emulates implicit state (``standin_state``).
    """

    def no(what):
        raise Refused(
            f"the stand-in for the {backend} backend cannot emulate {what}; the native backend can: "
            "validate this model on a server that has it"
        )

    sequence = config.get("sequence_batching") or {}
    if sequence.get("state") and not states:
        no("implicit state of sequence models (sequence_batching.state)")
    if config.get("batch_input"):
        no("batch_input")
    if config.get("batch_output"):
        no("batch_output")
    for tensor in config.get("input", []):
        if tensor.get("allow_ragged_batch"):
            no(f"a ragged batch (allow_ragged_batch of input '{tensor['name']}')")
        if tensor.get("is_shape_tensor"):
            no(f"shape tensors (input '{tensor['name']}')")
    if (config.get("model_transaction_policy") or {}).get("decoupled"):
        no("a decoupled transaction policy")
    if kind != "CPU":
        no(f"instances of the kind KIND_{kind}")
    accelerators = (config.get("optimization") or {}).get("execution_accelerators") or {}
    for item in accelerators.get("gpu_execution_accelerator") or []:
        no(f"the GPU execution accelerator '{item.get('name')}'")


def parameter(config, key, default=None):
    """The text of one entry of ``parameters``."""
    entry = (config.get("parameters") or {}).get(key)
    return default if entry is None else entry.get("string_value", default)


def integer_parameter(config, key, default=0):
    """One entry of ``parameters`` as a whole number."""
    text = parameter(config, key)
    if text is None:
        return default
    try:
        return int(text)
    except ValueError:
        raise Refused(f"parameter '{key}' is no whole number: '{text}'") from None


def boolean_parameter(config, key, default=False):
    """One entry of ``parameters`` as Triton's backends read it: true/false, 1/0, on/off."""
    text = parameter(config, key)
    if text is None:
        return default
    value = {"true": True, "1": True, "on": True, "false": False, "0": False, "off": False}.get(text.lower())
    if value is None:
        raise Refused(f"parameter '{key}' is no boolean: '{text}'")
    return value


def model_path(args, config, default):
    """The model's file or folder for this version.

    Raises:
        Refused: it is not there, in the words of the native backends.
    """
    name = config.get("default_model_filename") or default
    path = Path(args["model_repository"], str(args["model_version"]), name)
    if not path.exists():
        raise Refused(f"unable to find '{path}' for model instance '{args['model_name']}'")
    return path


def path_during_completion(config, default):
    """As :func:`model_path`, where Triton passes nothing but the configuration: the stub's own command line has it."""
    command = _command_line("self")
    path = Path(command[1]).parent / (config.get("default_model_filename") or default)
    if not path.exists():
        raise Refused(f"unable to find '{path}' for model '{config.get('name')}'")
    return path


def default_max_batch_size(backend):
    """What the server was started with as ``default-max-batch-size``; 4 unless it says otherwise."""
    chosen = 4
    try:
        server = _command_line(_command_line("self")[5])
    except (OSError, IndexError):
        return chosen
    for position, word in enumerate(server):
        value = word.removeprefix("--backend-config=") if word.startswith("--backend-config=") else None
        if word == "--backend-config" and position + 1 < len(server):
            value = server[position + 1]
        for prefix in ("default-max-batch-size=", f"{backend},default-max-batch-size="):
            if value and value.startswith(prefix):
                chosen = int(value.removeprefix(prefix))
    return chosen


def dims_of(tensor):
    """The dims that the model sees: those of ``reshape`` where there is one."""
    shape = tensor["reshape"].get("shape", []) if "reshape" in tensor else tensor.get("dims", [])
    return [int(dim) for dim in shape]


def compare_dims(model, name, provided, dims, max_batch_size, exact):
    """Hold a model's own shape against the configured one, as the native ONNX Runtime backend does.

    ``provided`` has -1 for dynamic axes. A dynamic axis of the model takes any configured size for inputs; for
    outputs (``exact``) the two must be equal. Source: onnxruntime_backend ``CompareDimsSupported``.
    """
    wanted = ([-1] if max_batch_size > 0 else []) + dims
    if max_batch_size > 0 and (not provided or provided[0] != -1):
        raise Refused(
            f"model '{model}', tensor '{name}': for the model to support batching the shape should have at least 1 "
            f"dimension and the first dimension must be -1; but shape expected by the model is {shape_text(provided)}"
        )
    fits = len(provided) == len(wanted) and all(
        own == asked for own, asked in zip(provided, wanted, strict=True) if exact or own != -1
    )
    if not fits:
        whole = " with the batch dimension that max_batch_size > 0 puts first" if max_batch_size > 0 else ""
        raise Refused(
            f"model '{model}', tensor '{name}': the model expects {len(provided)} dimensions (shape "
            f"{shape_text(provided)}) but the model configuration specifies {len(wanted)} dimensions (shape "
            f"{shape_text(wanted)}{whole})"
        )


def shape_text(shape):
    """A shape as Triton writes it: ``[-1,3]``."""
    return "[" + ",".join(str(dim) for dim in shape) + "]"


def control_inputs(config):
    """The tensors that the sequence batcher adds: name and configured type (None where any)."""
    found = {}
    for item in (config.get("sequence_batching") or {}).get("control_input", []):
        for control in item.get("control", []):
            kind = None
            for field, datatype in (
                ("int32_false_true", "TYPE_INT32"),
                ("fp32_false_true", "TYPE_FP32"),
                ("bool_false_true", "TYPE_BOOL"),
            ):
                if control.get(field):
                    kind = datatype
            if control.get("kind") == "CONTROL_SEQUENCE_CORRID":
                kind = control.get("data_type")
            found[item["name"]] = kind
    return found


def _command_line(process):
    return [os.fsdecode(word) for word in Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")]
