"""A packed Python environment, as Triton's Python backend unpacks it for one model.

Source: ``python_backend`` README, "Creating Custom Execution Environments": the archive has ``bin/activate``, and its
Python must have the version that the stub was built for. Nothing of it is run here.
"""

from __future__ import annotations

import re
import tarfile
from pathlib import Path
from typing import Final

from tritonforge.artifact.artifact import is_inside
from tritonforge.errors import CheckFailed, Place

ENVIRONMENT: Final = "environment.tar.gz"
"""Its name in the model's folder."""

PARAMETER: Final = "EXECUTION_ENV_PATH"
_PYTHON: Final = re.compile(r"^lib/python(3\.\d+)/")


def check_environment(archive: Path) -> str | None:
    """Look through the archive's names; the version of its Python where they tell it.

    Raises:
        CheckFailed: it is no gzipped tar, has no ``bin/activate``, or a member that leads out of it.
    """
    place = Place(archive)
    names: set[str] = set()
    python = None
    try:
        with tarfile.open(archive, "r:gz") as packed:
            for member in packed:
                name = member.name.removeprefix("./")
                if name in ("", "."):
                    continue
                if not is_inside(name):
                    raise CheckFailed("the environment has a file outside of itself", place=place, found=member.name)
                found = _PYTHON.match(name)
                python = python or (found.group(1) if found else None)
                names.add(name)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise CheckFailed(
            "the environment cannot be read",
            place=place,
            found=str(error),
            expected="a .tar.gz, as `conda-pack` writes it",
        ) from None
    if "bin/activate" not in names:
        raise CheckFailed(
            "the environment has no bin/activate",
            place=place,
            found=", ".join(sorted(names)[:5]) or "an empty archive",
            expected="what `conda-pack` writes: bin/, lib/ and so on at the top",
        )
    return python
