"""Every kind of source as a small model: what the table of sources and backends is made of.

Each row writes its source below a folder and gives the keys of a model in ``forge.yaml``, without a backend. ``why``
has the reasons for cells that cannot be filled, beyond those that tritonforge itself states.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NET = '''
import torch
from torch import nn


class Net(nn.Module):
    """Four numbers → three scores."""

    def __init__(self, hidden: int = 8) -> None:
        super().__init__()
        self.first = nn.Linear(4, hidden)
        self.second = nn.Linear(hidden, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))
'''
KERAS = '''
import keras


def network() -> keras.Model:
    """Four numbers → three scores."""
    return keras.Sequential(
        [keras.layers.Input((4,), name="x"), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(3)]
    )
'''
TORCH_TYPES = {"inputs": {"x": "FP32[4]"}, "outputs": {"scores": "FP32[3]"}}

Make = Callable[[Path], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of source. ``group`` puts rows into one spec; ``needs`` are modules without which it is skipped."""

    name: str
    title: str
    group: str
    make: Make
    needs: tuple[str, ...] = ()
    why: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def _module(folder: Path, name: str, text: str) -> Any:
    """Write ``name.py`` and import it from there."""
    file = folder / f"{name}.py"
    file.write_text(text)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _net(folder: Path) -> Any:
    import torch

    torch.manual_seed(7)
    return _module(folder, "net", NET).Net().eval()


def torchscript(folder: Path) -> dict[str, Any]:
    import torch

    torch.jit.script(_net(folder)).save(str(folder / "net.pt"))
    return {"source": "net.pt", **TORCH_TYPES}


def torch_export(folder: Path) -> dict[str, Any]:
    import torch

    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(_net(folder), (torch.zeros(3, 4),), dynamic_shapes=({0: batch},))
    torch.export.save(program, str(folder / "net.pt2"))
    return {"source": "net.pt2"}


def state_dict(folder: Path) -> dict[str, Any]:
    import torch

    torch.save(_net(folder).state_dict(), folder / "weights.pt")
    return {"source": "weights.pt", "torch": {"module": "net:Net", "code": {"net.py": "net.py"}}, **TORCH_TYPES}


def safetensors(folder: Path) -> dict[str, Any]:
    from safetensors.torch import save_file

    save_file(_net(folder).state_dict(), folder / "weights.safetensors")
    torch_keys = {"module": "net:Net", "arguments": {"hidden": 8}, "weights": "weights.safetensors"}
    return {"source": "net.py", "torch": torch_keys, **TORCH_TYPES}


def pickled(folder: Path) -> dict[str, Any]:
    import torch

    torch.save(_net(folder), folder / "whole.pt")
    torch_keys = {"allow_pickle": True, "code": {"net.py": "net.py"}}
    return {"source": "whole.pt", "format": "torch-pickle", "torch": torch_keys, **TORCH_TYPES}


def transformers_class(folder: Path) -> dict[str, Any]:
    config = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "vocab_size": 50,
        "max_position_embeddings": 32,
    }
    return {
        "source": "transformers:BertModel",
        "torch": {"arguments": {"config": config}},
        "inputs": {"input_ids": "INT64[sequence]", "attention_mask": "INT64[sequence]"},
        "golden": {
            "axes": {"sequence": [2, 12]},
            "ranges": {"input_ids": {"low": 0, "high": 49}, "attention_mask": {"low": 1, "high": 1}},
        },
    }


PICTURE = {"inputs": {"x": "FP32[3,64,64]"}, "outputs": {"logits": "FP32[10]"}}


def torchvision_name(folder: Path) -> dict[str, Any]:
    return {"source": "torchvision:squeezenet1_1", "torch": {"arguments": {"num_classes": 10}}, **PICTURE}


def timm_name(folder: Path) -> dict[str, Any]:
    return {"source": "timm:test_resnet", "torch": {"arguments": {"num_classes": 10}}, **PICTURE}


def _keras(folder: Path) -> Any:
    import keras

    keras.utils.set_random_seed(7)
    return _module(folder, "network", KERAS).network()


def savedmodel(folder: Path) -> dict[str, Any]:
    _keras(folder).export(str(folder / "saved"), verbose=False)
    return {"source": "saved", "tensorflow": {"signature": "serving_default"}}


def keras_file(folder: Path) -> dict[str, Any]:
    _keras(folder).save(str(folder / "net.keras"))
    return {"source": "net.keras"}


def h5_file(folder: Path) -> dict[str, Any]:
    _keras(folder).save(str(folder / "net.h5"))
    return {"source": "net.h5"}


def graphdef(folder: Path) -> dict[str, Any]:
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    network = _keras(folder)
    function = tf.function(lambda x: network(x)).get_concrete_function(tf.TensorSpec([None, 4], tf.float32, name="x"))
    frozen = convert_variables_to_constants_v2(function)
    (folder / "frozen.pb").write_bytes(frozen.graph.as_graph_def().SerializeToString())
    return {"source": "frozen.pb"}


def checkpoint(folder: Path) -> dict[str, Any]:
    import tensorflow as tf

    network = _keras(folder)
    (folder / "checkpoint").mkdir()
    tf.train.Checkpoint(model=network).write(str(folder / "checkpoint" / "net"))
    return {
        "source": "checkpoint",
        "format": "tf-checkpoint",
        "tensorflow": {"factory": "network:network", "code": {"network.py": "network.py"}},
    }


TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 60,
    "max_position_embeddings": 40,
}


def _saved(folder: Path, model: Any) -> dict[str, Any]:
    model.eval().save_pretrained(folder / "model")
    return {"source": "model"}


def _bert(kind: str, task: str) -> Make:
    def make(folder: Path) -> dict[str, Any]:
        import torch
        import transformers

        torch.manual_seed(7)
        config = transformers.BertConfig(**TEXT, num_labels=2 if task == "question-answering" else 3)
        return {**_saved(folder, getattr(transformers, kind)(config)), "huggingface": {"task": task}}

    return make


def vit(folder: Path) -> dict[str, Any]:
    import torch
    import transformers

    torch.manual_seed(7)
    small = {key: value for key, value in TEXT.items() if key not in ("vocab_size", "max_position_embeddings")}
    config = transformers.ViTConfig(**small, image_size=32, patch_size=8, num_labels=4)
    return _saved(folder, transformers.ViTForImageClassification(config))


def resnet(folder: Path) -> dict[str, Any]:
    import torch
    import transformers

    torch.manual_seed(7)
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=4
    )
    made = _saved(folder, transformers.ResNetForImageClassification(config))
    return {**made, "inputs": {"pixel_values": "FP32[3,32,32]"}}


def owlv2(folder: Path) -> dict[str, Any]:
    import torch
    import transformers

    torch.manual_seed(7)
    text = {**TEXT, "max_position_embeddings": 16, "bos_token_id": 0, "eos_token_id": 59, "pad_token_id": 1}
    vision = {**{key: TEXT[key] for key in TEXT if "vocab" not in key and "position" not in key}}
    vision.update(image_size=32, patch_size=8)
    config = transformers.Owlv2Config(text_config=text, vision_config=vision, projection_dim=16)
    return _saved(folder, transformers.Owlv2ForObjectDetection(config))


SOUND = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_mel_bins": 8,
    "max_source_positions": 30,
    "max_target_positions": 16,
    "vocab_size": 60,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}


def whisper_encoder(folder: Path) -> dict[str, Any]:
    import torch
    import transformers

    torch.manual_seed(7)
    config = transformers.WhisperConfig(**SOUND)
    made = _saved(folder, transformers.WhisperForConditionalGeneration(config))
    return {**made, "huggingface": {"task": "automatic-speech-recognition"}}


def speech_classes(folder: Path) -> dict[str, Any]:
    import torch
    import transformers

    torch.manual_seed(7)
    config = transformers.WhisperConfig(**SOUND, num_labels=3)
    return _saved(folder, transformers.WhisperForAudioClassification(config))


def _llama(task: str) -> Make:
    def make(folder: Path) -> dict[str, Any]:
        import torch
        import transformers

        torch.manual_seed(7)
        config = transformers.LlamaConfig(**TEXT, num_key_value_heads=1)
        return {**_saved(folder, transformers.LlamaForCausalLM(config)), "huggingface": {"task": task}}

    return make


def onnx_old(folder: Path) -> dict[str, Any]:
    import making_onnx as making
    from onnx import helper

    made = making.batched_add()
    del made.opset_import[:]
    made.opset_import.append(helper.make_opsetid("", 7))
    made.ir_version = 3
    made.graph.input.extend(
        helper.make_tensor_value_info(item.name, item.data_type, item.dims) for item in made.graph.initializer
    )
    making.save(folder / "old.onnx", made)
    return {"source": "old.onnx"}


def onnx_external(folder: Path) -> dict[str, Any]:
    import making_onnx as making

    making.save_external(folder / "big" / "net.onnx")
    return {"source": "big/net.onnx"}


def python_model(folder: Path) -> dict[str, Any]:
    (folder / "model.py").write_text(
        "import triton_python_backend_utils as pb_utils\n\n\n"
        "class TritonPythonModel:\n"
        "    def execute(self, requests):\n"
        "        return [self.answer(request) for request in requests]\n\n"
        "    def answer(self, request):\n"
        "        x = pb_utils.get_input_tensor_by_name(request, 'x').as_numpy()\n"
        "        return pb_utils.InferenceResponse([pb_utils.Tensor('y', x + x)])\n"
    )
    return {
        "source": "model.py",
        "max_batch_size": 8,
        "inputs": {"x": "FP32[4]"},
        "outputs": {"y": "FP32[4]"},
        "golden": {"ranges": {"x": {"low": -1, "high": 1}}},
    }


UNSERVED = {"python": "the library is needed where it is served; its public build does not load beside a CPU PyTorch"}
T, F, H = ("torch",), ("tensorflow",), ("torch", "transformers")
ROWS = (
    Row("onnx-opset7", "ONNX, opset 7", "onnx", onnx_old),
    Row("onnx-external", "ONNX, external data", "onnx", onnx_external),
    Row("python", "Python model", "onnx", python_model),
    Row("torchscript", "TorchScript `.pt`", "torch", torchscript, T),
    Row("torch-export", "`torch.export` `.pt2`", "torch", torch_export, T),
    Row("state-dict", "PyTorch class + `.pt` state dict", "torch", state_dict, T),
    Row("safetensors", "PyTorch class + `.safetensors`", "torch2", safetensors, T),
    Row("pickle", "pickled PyTorch module (allowed)", "torch2", pickled, T),
    Row("transformers-class", "`transformers:` class by name", "torch2", transformers_class, H),
    Row("torchvision", "`torchvision:` architecture by name", "names", torchvision_name, T, UNSERVED),
    Row("timm", "`timm:` architecture by name", "names", timm_name, T, UNSERVED),
    Row("savedmodel", "TensorFlow SavedModel", "tensorflow", savedmodel, F),
    Row("keras", "Keras `.keras`", "tensorflow", keras_file, F),
    Row("h5", "Keras `.h5`", "tensorflow", h5_file, F),
    Row("graphdef", "frozen GraphDef `.pb`", "tensorflow2", graphdef, F),
    Row("checkpoint", "TensorFlow checkpoint + factory", "tensorflow2", checkpoint, F),
    Row("features", "HF feature extraction (BERT)", "text", _bert("BertModel", "feature-extraction"), H),
    Row(
        "text-classes",
        "HF text classification (BERT)",
        "text",
        _bert("BertForSequenceClassification", "text-classification"),
        H,
    ),
    Row(
        "token-classes",
        "HF token classification (BERT)",
        "text",
        _bert("BertForTokenClassification", "token-classification"),
        H,
    ),
    Row(
        "questions",
        "HF question answering (BERT)",
        "text2",
        _bert("BertForQuestionAnswering", "question-answering"),
        H,
    ),
    Row("decoder", "HF text generation (Llama)", "text2", _llama("text-generation"), H),
    Row(
        "decoder-past",
        "HF text generation with past (Llama)",
        "text2",
        _llama("text-generation-with-past"),
        H,
        {"python": "a decoder's cache as tensors is made for graphs; in Python it is transformers' own object"},
    ),
    Row("vit", "HF image classification (ViT)", "vision", vit, H),
    Row("resnet", "HF image classification (ResNet)", "vision", resnet, H),
    Row(
        "owlv2",
        "HF zero-shot detection (OWLv2)",
        "vision",
        owlv2,
        H,
        # Random weights make it steep, and OpenVINO serves in BF16 where the processor has it.
        settings={"openvino": {"tolerance": {"cosine": 0.98}}},
    ),
    Row("whisper", "HF speech encoder (Whisper)", "sound", whisper_encoder, H),
    Row("speech-classes", "HF speech classification (Whisper)", "sound", speech_classes, H),
)
BACKENDS = ("onnxruntime", "pytorch", "openvino", "python")
