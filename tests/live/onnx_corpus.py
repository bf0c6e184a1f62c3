"""ONNX's own models with inputs and expected outputs: its node tests, and the ``light/`` networks.

What counts is what the installed ONNX Runtime answers as expected when its own Python interface is asked, with onnx's
comparison and tolerances (``onnx.backend.test.runner``). That interface takes no arrays of the 4-bit, 8-bit and 16-bit
floats that numpy lacks, so that models with such inputs or outputs are not among them.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.backend.test.runner import Runner

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"

Value = Any
"""An array, a list of them (a sequence), or None."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """Inputs by name, and the outputs in the model's order."""

    inputs: Mapping[str, Value]
    outputs: Sequence[Value]

    @property
    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """The inputs, where all of them are arrays; without those that a model may go without."""
        assert self.only_arrays
        return dict(self.inputs)

    @property
    def only_arrays(self) -> bool:
        """Whether every input is an array."""
        return all(isinstance(value, np.ndarray) for value in self.inputs.values())


@dataclass(frozen=True, slots=True)
class CorpusModel:
    """A model as its authors publish it, with what it must answer."""

    name: str
    content: bytes
    sets: tuple[DataSet, ...]
    rtol: float
    atol: float

    def compare(self, found: Sequence[Value], wanted: DataSet) -> None:
        """Raises AssertionError, or TypeError, where onnx says that the outputs are others."""
        Runner.assert_similar_outputs(wanted.outputs, found, self.rtol, self.atol)

    def runs(self) -> bool:
        """Whether ONNX Runtime by itself answers every data set as expected."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        try:
            session = onnxruntime.InferenceSession(self.content, options, providers=["CPUExecutionProvider"])
            for wanted in self.sets:
                self.compare(session.run(None, dict(wanted.inputs)), wanted)
        except (AssertionError, Exception):  # whatever it is: it does not run
            return False
        return True


def node_models() -> Iterator[CorpusModel]:
    """Every node test of the installed onnx package, in the order of their names."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # making the expected outputs overflows on purpose
        cases = collect_testcases(None)
    for case in sorted(cases, key=lambda case: case.name):
        names = [item.name for item in case.model.graph.input]
        sets = tuple(
            DataSet(dict(zip(names, map(_value, inputs), strict=False)), list(map(_value, outputs)))
            for inputs, outputs in case.data_sets
        )
        yield CorpusModel(case.name, case.model.SerializeToString(), sets, case.rtol, case.atol)


def light_networks() -> Iterator[CorpusModel]:
    """The networks in ``light/``: real graphs with made-up weights, asked as onnx's runner asks them."""
    for path in sorted((DATA / "light").glob("light_*.onnx")):
        settings = json.loads((DATA / "real" / path.stem.replace("light_", "test_") / "data.json").read_text())
        model = onnx.load(path)
        constant = {item.name for item in model.graph.initializer}
        inputs = {
            item.name: Runner.generate_dummy_data(item, seed=0, name=path.stem)
            for item in model.graph.input
            if item.name not in constant
        }
        outputs = []
        for index in range(len(model.graph.output)):
            tensor = TensorProto()
            tensor.ParseFromString(path.with_name(f"{path.stem}_output_{index}.pb").read_bytes())
            outputs.append(numpy_helper.to_array(tensor))
        tolerance = {"rtol": 1e-3, "atol": 1e-7, **settings}
        yield CorpusModel(
            path.stem, path.read_bytes(), (DataSet(inputs, outputs),), tolerance["rtol"], tolerance["atol"]
        )


def write_inputs(folder: Path, model: CorpusModel) -> bool:
    """Each data set's inputs as an ``.npz`` file; False, and none written, where they are no arrays."""
    if not all(wanted.only_arrays for wanted in model.sets):
        return False
    folder.mkdir(parents=True)
    for index, wanted in enumerate(model.sets):
        plain = {name: value.astype(str) if value.dtype == object else value for name, value in wanted.arrays.items()}
        np.savez(folder / f"{index}.npz", **plain)
    return True


def _value(value: Value) -> Value:
    if isinstance(value, TensorProto):
        value = numpy_helper.to_array(value)
    if isinstance(value, list | tuple):
        return [_value(item) for item in value]
    if value is None:
        return None
    array = np.asarray(value)
    return array.astype(object) if array.dtype.kind in "SU" else array
