"""TensorFlow runs a source by its recipe, and the SavedModel of a ``python`` artifact."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tritonforge.artifact.artifact import Artifact
from tritonforge.runners.runner import Tensors
from tritonforge.sources.tensorflow.framework import tensorflow
from tritonforge.sources.tensorflow.load import load_function
from tritonforge.sources.tensorflow.loaded import Loaded

if TYPE_CHECKING:
    import numpy as np


class TensorFlowRunner:
    """A loaded function; ``optimise`` is Grappler, a setting of the whole process that is made anew for every run."""

    def __init__(self, loaded: Loaded, *, optimise: bool) -> None:
        self.title = f"tensorflow {tensorflow().__version__}"
        self.loaded = loaded
        self.optimise = optimise

    def run(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> Tensors:
        """See :class:`~tritonforge.runners.runner.Runner`."""
        tensorflow().config.optimizer.set_experimental_options({"disable_meta_optimizer": not self.optimise})
        return self.loaded.run(inputs)


def open_model(artifact: Artifact, folder: Path, *, threads: int, optimise: bool) -> TensorFlowRunner:
    """Load by ``metadata["recipe"]``: of an imported source, or of what ``tensorflow-to-python`` made of one."""
    with suppress(RuntimeError):  # the process computed already: its threads are what they are
        tensorflow().config.threading.set_intra_op_parallelism_threads(threads)
        tensorflow().config.threading.set_inter_op_parallelism_threads(1)
    return TensorFlowRunner(load_function(folder, artifact.metadata["recipe"]), optimise=optimise)
