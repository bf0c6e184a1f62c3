"""Triton repositories as people make them: the layouts of Triton's documentation, written anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

Files = dict[str, str | bytes | None]
"""Contents by path; None is an empty folder."""

LAYOUTS: dict[str, Files] = {
    # A network in ONNX with labels; one version; no batches.
    "densenet_onnx": {
        "config.pbtxt": """
name: "densenet_onnx"
platform: "onnxruntime_onnx"
max_batch_size : 0
input [{ name: "data_0" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 3, 224, 224 ]
         reshape { shape: [ 1, 3, 224, 224 ] } }]
output [{ name: "fc6_1" data_type: TYPE_FP32 dims: [ 1000 ] reshape { shape: [ 1, 1000, 1, 1 ] }
          label_filename: "densenet_labels.txt" }]
""",
        "1/model.onnx": b"\x08\x07onnx",
        "densenet_labels.txt": "tench\ngoldfish\n",
    },
    # External data, as Triton documents it: a folder called model.onnx. No config: the server completes it.
    "large_onnx": {"1/model.onnx/model.onnx": b"\x08\x08graph", "1/model.onnx/model.data": b"\x00" * 4096},
    # TensorFlow's two ways of saving, one without a config.
    "inception_graphdef": {
        "config.pbtxt": """
platform: "tensorflow_graphdef"
max_batch_size: 128
input { name: "input" data_type: TYPE_FP32 format: FORMAT_NHWC dims: 299 dims: 299 dims: 3 }
output { name: "InceptionV3/Predictions/Softmax" data_type: TYPE_FP32 dims: 1001 label_filename: "labels.txt" }
version_policy: { latest { num_versions: 2 } }
dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 }
""",
        "3/model.graphdef": b"graph 3",
        "7/model.graphdef": b"graph 7",
        "12/model.graphdef": b"graph 12",
        "labels.txt": "one\ntwo\n",
    },
    "simple_savedmodel": {
        "1/model.savedmodel/saved_model.pb": b"saved",
        "1/model.savedmodel/variables/variables.index": b"index",
        "1/model.savedmodel/variables/variables.data-00000-of-00001": b"data",
    },
    # One engine for each compute capability, two versions, two configs to choose from.
    "resnet_plan": {
        "config.pbtxt": """
name: "resnet_plan"
backend: "tensorrt"
max_batch_size: 16
default_model_filename: "model_sm80.plan"
cc_model_filenames [ { key: "7.5" value: "model_sm75.plan" }, { key: "8.0" value: "model_sm80.plan" } ]
input [ { name: "x" data_type: TYPE_FP16 dims: [ 3, -1, -1 ] } ]
output [ { name: "y" data_type: TYPE_FP16 dims: [ 1000 ] } ]
instance_group [ { count: 2 kind: KIND_GPU gpus: [ 0, 1 ] profile: [ "0", "1" ]
                   rate_limiter { resources [ { name: "R1" count: 4 } ] priority: 2 } } ]
version_policy { specific { versions: [ 1, 3 ] } }
optimization { cuda { graphs: true busy_wait_events: true
  graph_spec { batch_size: 1 input { key: "x" value { dim: [ 3, 224, 224 ] } } } } }
""",
        "1/model_sm75.plan": b"engine 75",
        "1/model_sm80.plan": b"engine 80",
        "2/model_sm80.plan": b"engine that nobody serves",
        "3/model_sm75.plan": b"newer engine 75",
        "3/model_sm80.plan": b"newer engine 80",
        "configs/quick.pbtxt": 'backend: "tensorrt" max_batch_size: 1 # for one at a time\n',
    },
    "words_libtorch": {
        "config.pbtxt": """
platform: "pytorch_libtorch"
default_model_filename: "traced.pt"
input [ { name: "INPUT__0" data_type: TYPE_INT64 dims: [ -1 ] allow_ragged_batch: true } ]
output [ { name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ 2 ] } ]
max_batch_size: 8
batch_input [ { kind: BATCH_ACCUMULATED_ELEMENT_COUNT target_name: "INDEX" data_type: TYPE_FP32
                source_input: "INPUT__0" } ]
dynamic_batching { priority_levels: 2 default_priority_level: 1
  priority_queue_policy { key: 1 value { timeout_action: DELAY default_timeout_microseconds: 500 } } }
parameters: { key: "DISABLE_OPTIMIZED_EXECUTION" value: { string_value: "true" } }
""",
        "1/traced.pt": b"PK\x03\x04torch",
    },
    "detector_openvino": {
        "config.pbtxt": 'backend: "openvino"\nparameters { key: "TARGET_DEVICE" value: { string_value: "CPU" } }\n',
        "1/model.xml": "<net/>",
        "1/model.bin": b"\x01\x02",
    },
    # Python with everything that may lie about: vocabularies, an environment, warm-up data, compiled code.
    "tokenizer": {
        "config.pbtxt": """
name: "tokenizer"
backend: "python"
max_batch_size: 32
input [ { name: "TEXT" data_type: TYPE_STRING dims: [ 1 ] }, { name: "HINT" data_type: TYPE_STRING dims: [ 1 ]
          optional: true } ]
output [ { name: "input_ids" data_type: TYPE_INT64 dims: [ -1 ] } ]
parameters { key: "EXECUTION_ENV_PATH" value { string_value: "$$TRITON_MODEL_DIRECTORY/env.tar.gz" } }
parameters { key: "FORCE_CPU_ONLY_INPUT_TENSORS" value { string_value: "no" } }
model_warmup [ { name: "once" batch_size: 1 count: 2 inputs { key: "TEXT" value { data_type: TYPE_STRING dims: [ 1 ]
                 input_data_file: "text" } } } ]
response_cache { enable: true }
""",
        "1/model.py": "class TritonPythonModel:\n    def execute(self, requests): ...\n",
        "1/words/__init__.py": "",
        "1/compiled.pyc": b"\x00code",
        "vocab/vocab.txt": "[PAD]\n[UNK]\n",
        "env.tar.gz": b"\x1f\x8b",
        "warmup/text": b"\x05\x00\x00\x00hello",
    },
    "stream": {
        "config.pbtxt": """
backend: "python"
max_batch_size: 4
input [ { name: "x" data_type: TYPE_FP32 dims: [ 16 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 16 ] } ]
sequence_batching { max_sequence_idle_microseconds: 5000000 oldest { max_candidate_sequences: 64 }
  control_input [ { name: "START" control [ { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] } ] } ]
  state [ { input_name: "h" output_name: "h_out" data_type: TYPE_FP32 dims: [ 8 ]
            initial_state { data_type: TYPE_FP32 dims: [ 8 ] name: "zero" data_file: "h" } } ] }
model_transaction_policy { decoupled: false }
""",
        "1/model.py": "# state\n",
        "initial_state/h": b"\x00" * 32,
    },
    # Trees, pipelines, language models: nothing that tritonforge converts.
    "fraud_fil": {
        "config.pbtxt": """
backend: "fil"
max_batch_size: 32768
input [ { name: "input__0" data_type: TYPE_FP32 dims: [ 32 ] } ]
output [ { name: "output__0" data_type: TYPE_FP32 dims: [ 1 ] } ]
instance_group [{ kind: KIND_AUTO }]
parameters [ { key: "model_type" value: { string_value: "xgboost_json" } },
             { key: "threshold" value: { string_value: "0.5" } } ]
""",
        "1/xgboost.json": '{"learner": {}}',
    },
    "decode_dali": {
        "config.pbtxt": """
backend: "dali"
max_batch_size: 256
input [ { name: "DALI_INPUT_0" data_type: TYPE_UINT8 dims: [ -1 ] } ]
output [ { name: "DALI_OUTPUT_0" data_type: TYPE_FP32 dims: [ 224, 224, 3 ] } ]
""",
        "1/model.dali": b"pipeline",
    },
    "llama_vllm": {
        "config.pbtxt": 'backend: "vllm"\n\n# vLLM places itself.\ninstance_group [ { count: 1 kind: KIND_MODEL } ]\n',
        "1/model.json": '{"model": "facebook/opt-125m", "gpu_memory_utilization": 0.5}\n',
    },
    "gpt_tensorrtllm": {
        "config.pbtxt": """
name: "gpt_tensorrtllm"
backend: "tensorrtllm"
max_batch_size: 64
model_transaction_policy { decoupled: true }
input [ { name: "input_ids" data_type: TYPE_INT32 dims: [ -1 ] allow_ragged_batch: true } ]
output [ { name: "output_ids" data_type: TYPE_INT32 dims: [ -1, -1 ] } ]
parameters: { key: "gpt_model_path" value: { string_value: "${engine_dir}" } }
""",
        "1/rank0.engine": b"engine",
        "1/config.json": "{}",
    },
    # A backend that lies in the model's own folder, and a version without a file.
    "own_backend": {
        "config.pbtxt": 'backend: "mine" max_batch_size: 0\n'
        'input { name: "IN" data_type: TYPE_INT32 dims: -1 } output { name: "OUT" data_type: TYPE_INT32 dims: -1 }\n',
        "libtriton_mine.so": b"\x7fELF",
        "1": None,
        "01/old.bin": b"Triton passes over versions with a zero in front",
        "notes/2024/why.md": "# Why\n",
    },
    "pipeline": {
        "config.pbtxt": """
name: "pipeline"
platform: "ensemble"
max_batch_size: 0
input [ { name: "IMAGE" data_type: TYPE_UINT8 dims: [ -1, -1 ] } ]
output [ { name: "CLASS" data_type: TYPE_FP32 dims: [ 1000 ] } ]
ensemble_scheduling { step [
  { model_name: "decode_dali" model_version: -1 input_map { key: "DALI_INPUT_0" value: "IMAGE" }
    output_map { key: "DALI_OUTPUT_0" value: "image" } },
  { model_name: "densenet_onnx" model_version: 1 input_map { key: "data_0" value: "image" }
    output_map { key: "fc6_1" value: "CLASS" } } ] }
""",
        "1": None,
    },
}

BACKENDS = {
    "densenet_onnx": "onnxruntime",
    "large_onnx": "onnxruntime",
    "inception_graphdef": "tensorflow",
    "simple_savedmodel": "tensorflow",
    "resnet_plan": "tensorrt",
    "words_libtorch": "pytorch",
    "detector_openvino": "openvino",
    "tokenizer": "python",
    "stream": "python",
    "fraud_fil": "fil",
    "decode_dali": "dali",
    "llama_vllm": "vllm",
    "gpt_tensorrtllm": "tensorrtllm",
    "own_backend": "mine",
    "pipeline": "ensemble",
}


def write_files(root: Path, files: Files) -> Path:
    """Write files and folders below ``root``."""
    for path, content in files.items():
        target = root / path
        if content is None:
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def write_repository(root: Path, models: dict[str, Files]) -> Path:
    """Write a repository of models."""
    for name, files in models.items():
        write_files(root / name, files)
    return root


def read_config(folder: Path) -> Any:
    """The config of a model's folder as Triton reads it: empty where there is none."""
    message = model_config_pb2.ModelConfig()
    file = folder / "config.pbtxt"
    return text_format.Parse(file.read_text(), message) if file.exists() else message


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but its config, by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / "config.pbtxt"
    }


def version_folders(folder: Path) -> set[str]:
    """The folders of a model that Triton takes for versions."""
    return {path.name for path in folder.iterdir() if path.is_dir() and path.name[0] in "123456789"}
