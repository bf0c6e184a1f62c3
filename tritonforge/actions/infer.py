"""``infer``: one request, from what people have at hand: a file, a text, JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from tritonforge.actions.connections import connection_for
from tritonforge.actions.live import ServerChoice, open_server, somebodys_server
from tritonforge.actions.loading import load_or_fail
from tritonforge.actions.serve import serving
from tritonforge.actions.workspace import open_workspace
from tritonforge.artifact.datatypes import exact_array
from tritonforge.errors import ForgeError, SpecError, UsageError, did_you_mean
from tritonforge.triton.client import Client

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Answer:
    """The outputs by name, without the batch axis where the request was one item; where they came from."""

    model: str
    server: str
    outputs: Mapping[str, np.ndarray[Any, Any]]
    rows: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "server": self.server,
            "outputs": {name: _plain(array) for name, array in self.outputs.items()},
        }


def infer(
    spec: Path | None,
    overlays: Sequence[Path],
    *,
    platform_name: str | None,
    choice: ServerChoice,
    model: str,
    value: str | None,
    named: Sequence[str],
    protocol: str | None,
    version: str,
    say: Callable[[str], None],
) -> Answer:
    """Ask a model once.

    Raises:
        UsageError: no such model, or the value does not fit its inputs.
        EnvironmentLacks: no server.
        CheckFailed: the model fails; in the server's words.
    """
    given = {}
    for item in named:
        name, separator, text = item.partition("=")
        if not separator:
            raise UsageError(f"--input {item} has no value", expected="NAME=VALUE")
        given[name] = text
    chosen = cast('Literal["http", "grpc"] | None', protocol)
    with _connected(spec, overlays, platform_name, choice, model, chosen, say) as client:
        try:
            metadata = client.model_metadata(model, version)
        except ForgeError:
            names = sorted({entry.name for entry in client.index()})
            if model in names:
                raise
            raise UsageError(f"the server has no model '{model}'", hint=did_you_mean(model, names)) from None
        config = client.model_config(model, version)
        batched = config.max_batch_size > 0
        optional = {item.name for item in config.input if item.optional}
        tensors = {item["name"]: item for item in metadata["inputs"]}
        texts = _assign(model, tensors, optional, value, given)
        arrays = {}
        for name, text in texts.items():
            array = _array(text, name, tensors[name], batched)
            arrays[name] = array
        outputs = client.infer(
            model,
            arrays,
            protocol=chosen,
            version=version,
            datatypes={name: tensors[name]["datatype"] for name in arrays},
        )
        single = batched and all(array.shape[0] == 1 for array in arrays.values())
        ordered = {item.name: outputs[item.name] for item in config.output if item.name in outputs}
        if single:
            ordered = {name: array[0] for name, array in ordered.items()}
        return Answer(model, client.connection.url, ordered, rows=batched and not single)


@contextmanager
def _connected(
    spec: Path | None,
    overlays: Sequence[Path],
    platform_name: str | None,
    choice: ServerChoice,
    model: str,
    protocol: Literal["http", "grpc"] | None,
    say: Callable[[str], None],
) -> Iterator[Client]:
    if choice.server is not None:
        # Neither a spec (for a URL) nor a release is needed to ask a server that somebody runs.
        workspace = None if "://" in choice.server else open_workspace(spec, overlays)
        connection = connection_for(workspace, choice.server)
        with somebodys_server(connection if protocol is None else connection.over(protocol)) as client:
            yield client
        return
    workspace = open_workspace(spec, overlays)
    folder = workspace.releases(workspace.platform(platform_name))
    if choice.kind == "embedded":
        running = serving(folder)
        if running is not None:
            with Client(running) as client:
                yield client
            return
    release = folder.find(None)
    release.served(model)  # a wrong name is said before a server is started for it
    if choice.kind == "embedded":
        say("no server runs for this spec: one is started for this request (`tritonforge serve` keeps one)")
    with (
        folder.hold(release),
        open_server(
            workspace, release, choice, explicit=True, progress=say if choice.kind == "container" else lambda text: None
        ) as server,
    ):
        if server.running is not None:
            load_or_fail(release, server, lambda text: None)
        yield server.client


def _assign(
    model: str, tensors: Mapping[str, Any], optional: set[str], value: str | None, given: Mapping[str, str]
) -> dict[str, Any]:
    """Which input gets which text."""
    for name in given:
        if name not in tensors:
            raise UsageError(f"'{model}' has no input '{name}'", hint=did_you_mean(name, tensors))
    texts: dict[str, Any] = dict(given)
    if value is not None:
        data = _json(value)
        if isinstance(data, dict):
            inputs = data.get("inputs", data)
            unknown = [name for name in inputs if name not in tensors]
            if unknown:
                raise UsageError(f"'{model}' has no input '{unknown[0]}'", hint=did_you_mean(unknown[0], tensors))
            texts.update({name: _Values(item) for name, item in inputs.items()})
        else:
            free = [name for name in tensors if name not in texts and name not in optional] or [
                n for n in tensors if n not in texts
            ]
            if len(free) != 1:
                raise UsageError(
                    f"'{model}' has several inputs",
                    expected=f"--input NAME=VALUE for each of {', '.join(free)}, or JSON with all of them",
                )
            texts[free[0]] = value
    missing = [name for name in tensors if name not in texts and name not in optional]
    if missing:
        raise UsageError(
            f"'{model}' needs a value for {', '.join(missing)}", expected="VALUE, --input NAME=VALUE, or JSON"
        )
    return texts


@dataclass(frozen=True, slots=True)
class _Values:
    """Values that came as JSON."""

    value: Any


def _json(text: str) -> Any:
    if text.endswith(".json") and _is_file(text):
        try:
            text = Path(text).read_text(encoding="utf-8")
        except (OSError, ValueError):
            return None  # not text: it may still be a file for a BYTES input
    if text.lstrip()[:1] in ("{",):
        try:
            return json.loads(text)
        except ValueError as error:
            raise UsageError("that is no JSON", found=str(error)) from None
    return None


def _is_file(text: str) -> bool:
    """Whether ``text`` names a file; any text may be asked, also one that can be no path."""
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False


def _array(text: Any, name: str, tensor: Mapping[str, Any], batched: bool) -> np.ndarray[Any, Any]:
    """One input, with the batch axis that the server wants."""
    import numpy as np

    datatype = tensor["datatype"]
    shape = [int(size) for size in tensor["shape"]]
    values: Any
    if isinstance(text, _Values):
        values = text.value
    elif text == "-":
        values = sys.stdin.buffer.read()
    elif text.endswith(".npy") and _is_file(text):
        try:
            values = np.load(text, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UsageError(f"{text} is no .npy file", found=str(error)) from None
    elif datatype == "BYTES" and _is_file(text):
        values = Path(text).read_bytes()
    elif datatype == "BYTES" and not text.startswith("["):
        values = text.encode()
    else:
        try:
            read = Path(text).read_text(encoding="utf-8") if text.endswith(".json") and _is_file(text) else text
            values = json.loads(read)
        except (OSError, ValueError, RecursionError):
            raise UsageError(
                f"'{name}' is {datatype}{shape}",
                expected="numbers as JSON, or a .json or .npy file",
                found=repr(text[:80]),
            ) from None
    try:
        array = _as_array(values, datatype)
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"'{name}' is {datatype}{shape}", found=str(error)) from None
    return _fit(array, name, datatype, shape, batched)


def _as_array(values: Any, datatype: str) -> np.ndarray[Any, Any]:
    import numpy as np

    if datatype == "BYTES":
        items = np.array(values, dtype=object)
        made = np.empty(items.shape, dtype=object)
        flat = [item if isinstance(item, bytes) else str(item).encode() for item in items.reshape(-1).tolist()]
        made.reshape(-1)[:] = flat
        return made
    return exact_array(values, datatype)


def _fit(
    array: np.ndarray[Any, Any], name: str, datatype: str, shape: list[int], batched: bool
) -> np.ndarray[Any, Any]:
    """The array in the served shape: leading axes of one are added, nothing else is guessed."""
    while array.ndim < len(shape):
        array = array[None]
    fits = array.ndim == len(shape) and all(want in (-1, got) for want, got in zip(shape, array.shape, strict=True))
    if not fits:
        raise SpecError(
            f"'{name}' does not fit",
            expected=f"{datatype}{shape}" + (" with the batch first" if batched else ""),
            found=str(list(array.shape)),
        )
    return array


def _plain(array: np.ndarray[Any, Any]) -> Any:
    if array.dtype == object:
        texts = [item.decode(errors="replace") if isinstance(item, bytes) else str(item) for item in array.reshape(-1)]
        import numpy as np

        return np.array(texts, dtype=object).reshape(array.shape).tolist()
    return array.tolist()
