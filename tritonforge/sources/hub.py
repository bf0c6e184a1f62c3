"""Models of the Hugging Face hub: the files that count, in the hub's own cache, at one commit.

Nothing of a model is executed. ``HF_HOME``, ``HF_HUB_CACHE``, ``HF_ENDPOINT``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` are
read by ``huggingface_hub`` as its documentation says.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from tritonforge.artifact.artifact import is_inside
from tritonforge.errors import CheckFailed, EnvironmentLacks, ForgeError, Place, SpecError
from tritonforge.sources.huggingface.config import weights
from tritonforge.sources.huggingface.files import model_files


def cached(name: str, commit: str, place: Place) -> dict[str, Path]:
    """What the hub's cache has of a commit, perhaps not all; nothing is fetched, and ``huggingface_hub`` not imported.

    Raises:
        SpecError: the cache has a link that leads out of it.
    """
    folder = _folder(name) / "snapshots" / commit
    if re.fullmatch(r"[0-9a-f]{40}", commit) is None or not folder.is_dir():
        return {}
    return _files(folder, place)


def fetched(name: str, revision: str | None, place: Place) -> tuple[dict[str, Path], str]:
    """The files of a revision (the hub's default branch when None), by name, and the commit that it stands for.

    While offline (``HF_HUB_OFFLINE``) only the cache is read.

    Raises:
        SpecError: the hub has no such model or revision, or it is none of transformers'.
        EnvironmentLacks: the hub cannot be reached, or refuses; or the cache lacks it while offline.
    """
    try:
        from huggingface_hub import HfApi, constants, snapshot_download
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError:
        raise EnvironmentLacks(
            "models of the Hugging Face hub need the package huggingface-hub",
            place=place,
            found=f"hub:{name}",
            hint="pip install 'tritonforge[huggingface]'",
        ) from None
    disable_progress_bars()
    try:
        if constants.HF_HUB_OFFLINE:
            return _offline(name, revision, place)
        info = HfApi().model_info(name, revision=revision)
        wanted = model_files(file.rfilename for file in info.siblings or ())
        if info.sha is None or "config.json" not in wanted:
            raise SpecError(
                "this hub model is none of transformers'",
                place=place,
                expected="a config.json at its top",
                found=", ".join(sorted(file.rfilename for file in info.siblings or ())[:6]) or "no files",
            )
        # Asked for by its name, so that the cache knows what the name stands for when the network is gone.
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
        return (_files(folder, place), folder.name) if folder.name == info.sha else fetched(name, revision, place)
    except ForgeError:
        raise
    except Exception as error:  # what huggingface_hub raises has no common class
        raise _refused(name, revision, error, place) from None


def _cache() -> Path:
    """The hub's cache. Source: huggingface_hub's page on environment variables."""
    if os.environ.get("HF_HUB_CACHE"):
        return Path(os.environ["HF_HUB_CACHE"]).expanduser()
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(home).expanduser() / "hub"


def _folder(name: str) -> Path:
    return _cache() / f"models--{name.replace('/', '--')}"


def _files(folder: Path, place: Place) -> dict[str, Path]:
    """The files of a snapshot that count; its links lead into the model's own blobs."""
    root = folder.parent.parent.resolve()
    found = {}
    for name in model_files(sorted(path.name for path in folder.iterdir())):
        path = folder / name
        if not path.resolve().is_relative_to(root):
            raise SpecError("the hub's cache has a link that leads out of it", place=place, found=str(path))
        if path.is_file():
            found[name] = path
    return found


def _offline(name: str, revision: str | None, place: Place) -> tuple[dict[str, Path], str]:
    """What the cache has, where that is a whole model: another program may have fetched its config alone."""
    asked = f"hub:{name}{'' if revision is None else '@' + revision}"
    hint = "run once with the network, or give a local folder as the source"
    commit = revision or "main"
    reference = _folder(name) / "refs" / commit
    if is_inside(commit) and reference.is_file() and reference.stat().st_size < 100:
        commit = reference.read_text(encoding="ascii", errors="replace").strip()
    files = cached(name, commit, place)
    if not files:
        raise EnvironmentLacks(
            f"{asked} is not in the hub's cache, and the hub is offline (HF_HUB_OFFLINE)",
            place=place,
            found=str(_cache()),
            hint=hint,
        )
    try:
        weights(next(iter(files.values())).parent)
    except CheckFailed as error:
        raise EnvironmentLacks(
            f"the hub's cache has only a part of {asked}, and the hub is offline (HF_HUB_OFFLINE)",
            place=place,
            expected=error.expected,
            found=", ".join(sorted(files)),
            hint=hint,
        ) from None
    return files, commit


def _refused(name: str, revision: str | None, error: Exception, place: Place) -> ForgeError:
    """The hub's refusal in our words, by the class of its error."""
    from huggingface_hub import errors

    said = " ".join(str(error).split())[:300]
    asked = f"hub:{name}{'' if revision is None else '@' + revision}"
    if isinstance(error, errors.GatedRepoError):
        return EnvironmentLacks(
            f"{name} is gated",
            place=place,
            found=said,
            hint="accept its conditions on the hub, and give your token (HF_TOKEN)",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return SpecError(
            f"the hub has no model '{name}', or it is private",
            place=place,
            found=said,
            hint="check the id; a private model needs your token (HF_TOKEN)",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return SpecError(f"{name} has no such revision", place=place, found=str(revision))
    if isinstance(error, errors.HFValidationError):
        return SpecError("this is no id of a hub model", place=place, found=name, expected="ORG/NAME")
    return EnvironmentLacks(
        f"cannot fetch {asked}",
        place=place,
        found=f"{type(error).__name__}: {said}",
        hint="check the network (HTTPS_PROXY, HF_ENDPOINT), set HF_HUB_OFFLINE=1 to use what the cache has, or give "
        "a local folder as the source",
    )
