"""Files that a config names must be in the model's folder: the server would find out only at load, or at the first use.

Where Triton looks: labels beside ``config.pbtxt``, warm-up data in ``warmup/``, initial states in ``initial_state/``
(docs/user_guide/model_configuration.md), the model itself in the version folder.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

from tritonforge.errors import Place, SpecError, did_you_mean


def check_named_files(message: Any, present: Collection[str], version: int, place: Callable[[str], Place]) -> None:
    """Hold a config against the files of its folder; ``present`` are their paths in it.

    Raises:
        SpecError: a file is missing.
    """
    for field, path in _named(message, version):
        if path not in present and not any(item.startswith(f"{path}/") for item in present):
            raise SpecError(
                "the config names a file that the model does not have",
                place=place(field),
                expected=path,
                found=", ".join(sorted(present)[:6]) or "no files",
                hint=did_you_mean(path, present)
                or "put it there with `folder_files:` (or `files:` for the version folder)",
            )


def _named(message: Any, version: int) -> Iterator[tuple[str, str]]:
    if message.default_model_filename:
        yield "default_model_filename", f"{version}/{message.default_model_filename}"
    for name in message.cc_model_filenames.values():
        yield "cc_model_filenames", f"{version}/{name}"
    for output in message.output:
        if output.label_filename:
            yield "output", output.label_filename
    for warmup in message.model_warmup:
        for item in warmup.inputs.values():
            if item.input_data_file:
                yield "model_warmup", f"warmup/{item.input_data_file}"
    for state in message.sequence_batching.state:
        for initial in state.initial_state:
            if initial.data_file:
                yield "sequence_batching", f"initial_state/{initial.data_file}"
