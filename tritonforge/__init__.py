"""tritonforge: from trained models to a proven, served NVIDIA Triton repository.

Importing this package loads no framework; see ``docs/concepts.md`` for the words used throughout.
"""

__version__ = "0.1.0"
