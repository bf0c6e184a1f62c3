"""HDF5 files of Keras: their configuration, and that they hold all of their data themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

from tritonforge.errors import CheckFailed, EnvironmentLacks, Place


def refuse_links(source: Path | BinaryIO | Any, place: Place) -> None:
    """Refuse a file whose links or datasets lie in other files: reading it would read those.

    Raises:
        CheckFailed: it does, or it is no HDF5.
    """
    h5py = _h5py()
    bad: list[str] = []

    def look(group: Any, path: str) -> None:
        for name in group:
            link = group.get(name, getlink=True)
            at = f"{path}/{name}"
            if isinstance(link, h5py.ExternalLink):
                bad.append(f"{at} → {link.filename}")
            elif isinstance(link, h5py.HardLink):
                item = group[name]
                if isinstance(item, h5py.Group):
                    look(item, at)
                elif isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
                    bad.append(f"{at} (stored elsewhere)")

    try:
        with h5py.File(source, "r") as file:
            look(file, "")
    except (OSError, KeyError, RuntimeError, RecursionError, ValueError) as error:
        raise CheckFailed("this is no whole HDF5 file", place=place, found=str(error)) from None
    if bad:
        raise CheckFailed(
            "the file takes data from other files", place=place, found=", ".join(bad[:4]), expected="one whole file"
        )


def model_config(path: Path, place: Place) -> str:
    """The configuration of a whole model, as JSON.

    Raises:
        CheckFailed: the file has weights alone.
    """
    with _h5py().File(path, "r") as file:
        text = file.attrs.get("model_config")
    if text is None:
        raise CheckFailed(
            "the file has weights but no model",
            place=place,
            expected="a file of `model.save(path)`",
            hint="name the function that makes the model with `tensorflow: {factory: PACKAGE.MODULE:NAME, code: …}`",
        )
    return text if isinstance(text, str) else bytes(text).decode()


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise EnvironmentLacks(
            "Keras files need the package h5py", hint="pip install 'tritonforge[tensorflow]'"
        ) from None
    return h5py
