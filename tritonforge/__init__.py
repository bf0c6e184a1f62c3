"""tritonforge: from trained models to a proven, served NVIDIA Triton repository.

Importing this package loads no framework; see ``docs/concepts.md`` for the words used throughout.
"""

import os

# ONNX Runtime 1.29 and later tell Microsoft of every model that is loaded (the names of its file and its graph, digests
# of its weights), unless this says no. Every process that is started here inherits it; who sets it to 0 has it so.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
