"""Loads a PyTorch module from the folder that this file lies in, and runs it compiled. Written by tritonforge.

It stands alone: torch is all that it needs, with safetensors, transformers, torchvision or timm where the module does.
``recipe.json`` says how the module is made, what it takes and gives, and how it is compiled.
"""

# mypy: ignore-errors

import hashlib
import importlib
import json
import locale
import os
import sys
import tempfile
from pathlib import Path

import torch

_DTYPES = {
    "BOOL": torch.bool,
    "UINT8": torch.uint8,
    "UINT16": torch.uint16,
    "UINT32": torch.uint32,
    "UINT64": torch.uint64,
    "INT8": torch.int8,
    "INT16": torch.int16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "FP16": torch.float16,
    "FP32": torch.float32,
    "FP64": torch.float64,
    "BF16": torch.bfloat16,
}


class Served:
    """A loaded module: :meth:`run` takes tensors by input name and gives tensors by output name."""

    def __init__(
        self, folder, *, device="cpu", mode=None, cache=None, threads=None, interop_threads=None, say=print, warm=True
    ):
        text = (folder / "recipe.json").read_text(encoding="utf-8")
        self.recipe = json.loads(text)
        _read_as_utf8()
        self.device = torch.device(device)
        self.mode = mode or self.recipe["mode"]
        if threads is not None:
            torch.set_num_threads(threads)
        if interop_threads is not None:
            torch.set_num_interop_threads(interop_threads)
        module = load(folder / "source", self.recipe["source"])
        if isinstance(module, torch.nn.Module):
            # A module of torch.export has no modes: it was exported in one.
            if type(module).__name__ != "GraphModule":
                module.eval()
            module.to(self.device)
        self.module = self.plain = module
        self.cache = None
        if self.mode != "off":
            self.cache = os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache_folder(text, cache)
            options = {} if self.mode == "default" else {"mode": self.mode}
            self.module = torch.compile(module, dynamic=self.recipe["dynamic"], **options)
        if warm:
            self._warm_up(say)

    def run(self, inputs):
        """The answers to one set of inputs; texts are lists of ``str``."""
        return self._run(self.module, inputs)

    def _run(self, module, inputs):
        fed = {
            name: value.to(self.device) if isinstance(value, torch.Tensor) else value for name, value in inputs.items()
        }
        missing = [item["name"] for item in self.recipe["inputs"] if item["name"] not in fed and not item["optional"]]
        if missing:
            raise ValueError("an input is missing: " + ", ".join(missing))
        with torch.inference_mode():
            return call(module, self.recipe, fed)

    def _warm_up(self, say):
        """Run the shapes of the recipe, so that no request waits for the compiler.

        A shape that the module itself refuses is skipped, and said; what only the compiled module refuses is an error.
        """
        for shapes in self.recipe["warm_up"]:
            inputs = {name: _filled(given) for name, given in shapes.items()}
            said = ", ".join(f"{name} {given['shape']}" for name, given in shapes.items())
            try:
                self._run(self.plain, inputs)
            except Exception as error:
                say(f"not warmed up with {said}: {_first_line(error)}")
                continue
            try:
                self.run(inputs)
            except Exception as error:
                raise RuntimeError(
                    f"torch.compile cannot run the module with {said}: {_first_line(error)}. It needs a C++ compiler "
                    "on CPUs; the parameter COMPILE_MODE 'off' runs the module as it is"
                ) from error


def load(folder, source):
    """The module of ``source``, whose files lie in ``folder``."""
    kind = source["kind"]
    if kind == "torchscript":
        return torch.jit.load(str(folder / source["file"]), map_location="cpu")
    if kind == "torch-export":
        return torch.export.load(str(folder / source["file"])).module()
    if kind == "huggingface":
        return _huggingface(folder, source)
    for path in reversed(source["paths"]):
        _first_on_path(folder / path)
    if kind == "torch-pickle":
        return torch.load(str(folder / source["file"]), map_location="cpu", weights_only=not source["allow_pickle"])
    module = _made(source)
    if source["weights"] is not None:
        module.load_state_dict(_state(folder / source["weights"], source), strict=source["strict"])
    return module


def call(module, recipe, inputs):
    """Call the module as its recipe says, and name its answers."""
    source = recipe["source"]
    fixed = source.get("sample") or {}
    if recipe["by_name"]:
        answer = module(**{**fixed, **inputs})
    else:
        answer = module(*[inputs[item["name"]] for item in recipe["inputs"] if item["name"] in inputs], **fixed)
    names = [item["name"] for item in recipe["outputs"]]
    if hasattr(answer, "keys"):
        if all(name in answer for name in names):
            return {name: answer[name] for name in names}
        answer = tuple(answer.values())
    found = [value for value in _leaves(answer) if value is not None]
    if len(found) != len(names):
        raise ValueError(f"the module gave {len(found)} outputs instead of {len(names)}")
    return dict(zip(names, found, strict=True))


def cache_folder(text, stated):
    """Where compiled code is kept: a folder of its own for every recipe, outside the model repository.

    Compiled code is run, so that a folder that another user could write to is not taken.
    """
    named = stated or os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    root = Path(named) if named else Path(tempfile.gettempdir(), f"tritonforge-compiled-{os.getuid()}")
    folder = root / hashlib.sha256(text.encode()).hexdigest()[:32]
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not named and (root.is_symlink() or root.stat().st_uid != os.getuid() or root.stat().st_mode & 0o022):
        return tempfile.mkdtemp(prefix="tritonforge-compiled-")
    folder.mkdir(mode=0o700, exist_ok=True)
    return str(folder)


class TaskModule(torch.nn.Module):
    """A network of transformers that takes tensors by name and gives those of its task by name, in FP32."""

    def __init__(self, model, source):
        super().__init__()
        self.model = model
        self.task = source["task"]
        self.outputs = source["outputs"]
        self.settings = {"use_cache": False} if self.task == "text-generation" else {}
        self.dtype = next((weight.dtype for weight in model.parameters() if weight.is_floating_point()), torch.float32)

    def forward(self, **tensors):
        given = {name: value.to(self.dtype) if value.is_floating_point() else value for name, value in tensors.items()}
        if self.task == "zero-shot-object-detection":
            given = {
                name: value if name == "pixel_values" else value.reshape(-1, value.shape[-1])
                for name, value in given.items()
            }
        found = self.model(**given, **self.settings, return_dict=True)
        answers = {name: found[name] for name in self.outputs}
        return {name: value.float() if value.is_floating_point() else value for name, value in answers.items()}


def _huggingface(folder, source):
    import transformers

    network = getattr(transformers, source["class"])
    model = network.from_pretrained(
        str(folder / "model"),
        local_files_only=True,
        use_safetensors=source["safetensors"],
        weights_only=True,
        dtype=_DTYPES[source["dtype"]],
        attn_implementation=source["attention"],
        **source["settings"],
    ).eval()
    if source["encoder"]:
        model = model.get_encoder()
    return TaskModule(model, source)


def _made(source):
    """The module by the class or function that is named, or by an architecture of a library."""
    arguments = dict(source["arguments"])
    torch.manual_seed(source["seed"])  # weights that no file gives are the same every time
    if source["architecture"] is None:
        module, _, path = source["module"].partition(":")
        made = importlib.import_module(module)
        for name in path.split("."):
            made = getattr(made, name)
        return made(**arguments) if callable(made) and not isinstance(made, torch.nn.Module) else made
    library, _, name = source["architecture"].partition(":")
    if library == "torchvision":
        from torchvision.models import get_model

        return get_model(name, weights=None, **arguments)
    if library == "timm":
        import timm

        return timm.create_model(name, pretrained=False, **arguments)
    import transformers

    network = getattr(transformers, name)
    return network(network.config_class(**arguments.pop("config", {})), **arguments)


def _state(path, source):
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(str(path))
    else:
        state = torch.load(str(path), map_location="cpu", weights_only=not source["allow_pickle"])
    if source["state_key"] is not None:
        for key in [source["state_key"]] if source["state_key"] in state else source["state_key"].split("."):
            state = state[key]
    return state.state_dict() if isinstance(state, torch.nn.Module) else state


def _first_on_path(folder):
    """Make the modules below ``folder`` importable before all others, of which some may have the same names."""
    root = str(folder.resolve())
    names = {item.stem for item in folder.iterdir() if item.is_dir() or item.suffix == ".py"} if folder.is_dir() else ()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.partition(".")[0] in names and not (file and str(Path(file).resolve()).startswith(root + os.sep)):
            del sys.modules[name]
    if root in sys.path:
        sys.path.remove(root)
    sys.path.insert(0, root)
    importlib.invalidate_caches()


def _leaves(answer):
    """All tensors and texts in an answer, in their order."""
    if isinstance(answer, torch.Tensor) or answer is None:
        return [answer]
    if isinstance(answer, list) and answer and all(isinstance(item, str) for item in answer):
        return [answer]
    if hasattr(answer, "keys"):
        return [leaf for value in answer.values() for leaf in _leaves(value)]
    if isinstance(answer, (tuple, list)):
        return [leaf for item in answer for leaf in _leaves(item)]
    raise ValueError(f"the module gave {type(answer).__name__}, which is no tensor")


def _filled(given):
    """A tensor of one shape for warming up, with a value that the input can have."""
    if given["datatype"] == "BYTES":
        return ["text"] * (given["shape"][0] if given["shape"] else 1)
    return torch.full(given["shape"], given["value"]).to(_DTYPES[given["datatype"]])


def _read_as_utf8():
    """Triton's stub starts Python in the C locale, where files are read as ASCII: the compiler's own are UTF-8."""
    for name in ("C.UTF-8", "C.utf8", "en_US.UTF-8"):
        if locale.getpreferredencoding(False).lower().replace("-", "") == "utf8":
            return
        try:
            locale.setlocale(locale.LC_CTYPE, name)
        except locale.Error:
            continue


def _first_line(error):
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:300]
