"""TensorFlow models, small and made on the spot. TensorFlow is imported by the functions that need it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

NETS = """\
import keras
import tensorflow as tf


def make(width=8):
    return keras.Sequential(
        [
            keras.Input((4,), name="x"),
            keras.layers.Dense(width, activation="relu"),
            keras.layers.Dense(3, name="y"),
        ]
    )


class Sub(keras.Model):
    def __init__(self, units=3, **more):
        super().__init__(**more)
        self.units = units
        self.dense = keras.layers.Dense(units)

    def call(self, a, b):
        return {"sum": self.dense(a + b), "difference": a - b}

    def get_config(self):
        return {"units": self.units}


class Net(tf.Module):
    def __init__(self):
        super().__init__()
        self.w = tf.Variable(tf.zeros([4, 2]))

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def __call__(self, x):
        return x @ self.w

    def halve(self, x):
        return {"half": x / 2}


def broken():
    raise ValueError("no such width")


def number():
    return 7
"""


def write_nets(folder: Path) -> Path:
    """``nets.py`` with factories."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nets.py").write_text(NETS)
    return folder / "nets.py"


def nets() -> dict[str, Any]:
    """The names of ``nets.py`` in this process."""
    names: dict[str, Any] = {"__name__": "nets"}
    exec(compile(NETS, "nets.py", "exec"), names)
    return names


def mlp() -> Any:
    import keras

    return keras.Sequential(
        [
            keras.Input((4,), name="x"),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dense(3, activation="softmax", name="probs"),
        ]
    )


def cnn() -> Any:
    """With batch normalisation whose statistics are not those that it begins with."""
    import keras
    from keras import layers

    model = keras.Sequential(
        [
            keras.Input((16, 16, 3), name="image"),
            layers.Conv2D(4, 3, strides=2, padding="same"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.DepthwiseConv2D(3),
            layers.MaxPool2D(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(5, name="scores"),
        ]
    )
    model.get_layer("norm").set_weights([np.full(4, value, np.float32) for value in (1.5, 0.1, 0.2, 2.0)])
    return model


def text() -> Any:
    """Token ids of any length, and three more features; two outputs by name."""
    import keras
    from keras import layers

    ids = keras.Input((None,), name="ids", dtype="int32")
    extra = keras.Input((3,), name="extra")
    state = layers.LSTM(6)(layers.Embedding(20, 8)(ids))
    both = layers.Concatenate()([state, extra])
    return keras.Model(
        {"ids": ids, "extra": extra},
        {"probs": layers.Dense(3, activation="softmax")(both), "score": layers.Dense(1)(both)},
    )


def words() -> Any:
    """Raw text in: ONNX has nothing for its regular expression."""
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input((1,), dtype="string", name="text"),
            layers.TextVectorization(vocabulary=["a", "tensor", "42"], output_sequence_length=4),
            layers.Embedding(10, 4),
            layers.GlobalAveragePooling1D(),
            layers.Dense(2, name="scores"),
        ]
    )


def with_lambda() -> Any:
    import keras

    return keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x * 2, name="doubled")])


def save_signatures(folder: Path, **functions: tuple[Any, list[Any]]) -> Path:
    """A SavedModel with one signature for each ``(function, [(name, dtype, shape), …])``."""
    import tensorflow as tf

    module = tf.Module()
    signatures = {}
    for name, (function, inputs) in functions.items():
        specs = [tf.TensorSpec(shape, dtype, name=own) for own, dtype, shape in inputs]
        made = tf.function(function, input_signature=specs, autograph=False)
        setattr(module, name, made)
        signatures[name] = made
    tf.saved_model.save(module, str(folder), signatures=signatures)
    return folder


def two_signatures(folder: Path) -> Path:
    """``encode`` and ``decode``."""
    import tensorflow as tf

    weights = tf.constant(np.arange(12, dtype=np.float32).reshape(4, 3))
    return save_signatures(
        folder,
        encode=(lambda x: {"code": x @ weights}, [("x", tf.float32, [None, 4])]),
        decode=(lambda code: {"y": tf.matmul(code, weights, transpose_b=True)}, [("code", tf.float32, [None, 3])]),
    )


def upper(folder: Path) -> Path:
    """Strings in and out."""
    import tensorflow as tf

    return save_signatures(
        folder,
        serving_default=(
            lambda text: {"upper": tf.strings.upper(text), "length": tf.strings.length(text)},
            [("text", tf.string, [None, 1])],
        ),
    )


def lookup(folder: Path) -> Path:
    """A table from strings to numbers, which ONNX can do."""
    import tensorflow as tf

    class Lookup(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            pairs = tf.lookup.KeyValueTensorInitializer(["tensor", "42"], tf.constant([1, 2], tf.int64))
            self.table = tf.lookup.StaticHashTable(pairs, -1)

        @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.string, name="words")])
        def serve(self, words: Any) -> Any:
            return {"ids": self.table.lookup(words)}

    made = Lookup()
    tf.saved_model.save(made, str(folder), signatures={"serving_default": made.serve})
    return folder


def freeze(model: Any, name: str, path: Path) -> Path:
    """The frozen graph of a Keras model with one input."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    spec = tf.TensorSpec(model.inputs[0].shape, tf.as_dtype(model.inputs[0].dtype), name=name)
    traced = tf.function(lambda value: model(value, training=False)).get_concrete_function(spec)
    frozen = convert_variables_to_constants_v2(traced)
    path.write_bytes(frozen.graph.as_graph_def().SerializeToString())
    return path


def keras_2(path: Path) -> Path:
    """A file as Keras 2.4 wrote it: ``relu(input_1 @ ones(4, 3) + [0, 1, 2])``."""
    import json

    import h5py

    dense = {"name": "dense", "trainable": True, "dtype": "float32", "units": 3, "activation": "relu", "use_bias": True}
    zeros = {"class_name": "Zeros", "config": {}}
    layers = [
        {
            "class_name": "InputLayer",
            "config": {"batch_input_shape": [None, 4], "dtype": "float32", "sparse": False, "name": "input_1"},
            "name": "input_1",
            "inbound_nodes": [],
        },
        {
            "class_name": "Dense",
            "config": {**dense, "kernel_initializer": zeros, "bias_initializer": zeros},
            "name": "dense",
            "inbound_nodes": [[["input_1", 0, 0, {}]]],
        },
    ]
    ends = {"input_layers": [["input_1", 0, 0]], "output_layers": [["dense", 0, 0]]}
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"], file.attrs["backend"] = "2.4.0", "tensorflow"
        config = {"class_name": "Functional", "config": {"name": "model", "layers": layers, **ends}}
        file.attrs["model_config"] = json.dumps(config)
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = [b"input_1", b"dense"]
        weights.create_group("input_1").attrs["weight_names"] = []
        stored = weights.create_group("dense")
        stored.attrs["weight_names"] = [b"dense/kernel:0", b"dense/bias:0"]
        stored["dense/kernel:0"] = np.ones((4, 3), np.float32)
        stored["dense/bias:0"] = np.arange(3, dtype=np.float32)
    return path
