"""The shape of ``forge.yaml``. ``tritonforge spec schema`` and ``docs/spec.md`` are generated from these classes."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator

from tritonforge.artifact.signature import parse_type
from tritonforge.errors import SpecError
from tritonforge.spec.connection import ConnectionSpec
from tritonforge.spec.conversion.export import ExportSpec
from tritonforge.spec.conversion.onnxruntime import OnnxRuntimeSpec
from tritonforge.spec.conversion.openvino import OpenVinoSpec
from tritonforge.spec.conversion.pytorch import PytorchSpec
from tritonforge.spec.conversion.quantize import QuantizeSpec
from tritonforge.spec.conversion.variant import Variant
from tritonforge.spec.frameworks.huggingface import HuggingFaceSource
from tritonforge.spec.frameworks.tensorflow import TensorFlowSource
from tritonforge.spec.frameworks.torch import TorchSource
from tritonforge.spec.sequence import SequenceSpec
from tritonforge.spec.sizes import size_in_bytes
from tritonforge.spec.source import SourceRef
from tritonforge.spec.store import StoreSpec
from tritonforge.spec.strict import Name, RelativePath, Strict
from tritonforge.spec.targets.target import TargetSpec
from tritonforge.spec.tolerance import Tolerance


def _tensor_type(text: str) -> str:
    try:
        parse_type(text)
    except SpecError as error:
        raise ValueError(f"{error.message}; expected {error.expected or error.hint}") from None
    return text


class TensorDecl(Strict):
    """An input or output, written out. The short form is the type alone: `CONTENT: BYTES[1]`."""

    type: str
    """Data type and the dims of one item, without the batch axis: `FP32[3,224,224]`, `INT64[-1]`, `BYTES[1]`."""
    optional: bool = False
    """Requests may leave this input out (Triton's `optional`)."""
    ragged: bool = False
    """Requests of unequal shape may share a batch (Triton's `allow_ragged_batch`)."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"type": value} if isinstance(value, str) else value

    _type = field_validator("type")(_tensor_type)


class InputRange(Strict):
    """What generated values of an input look like."""

    low: float | None = None
    """Smallest value."""
    high: float | None = None
    """Largest value (inclusive for integers)."""
    values: list[str | int | float] | None = None
    """Choose from these instead."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"`low` {self.low} is above `high` {self.high}")
        return self


class GoldenSpec(Strict):
    """The cases that prove a model: generated ones with the source's own answers, and files with expected answers."""

    seed: int = 0
    """Seed of the generated inputs."""
    ranges: dict[str, InputRange] = {}
    """Value ranges of generated inputs by name; floats are drawn from a normal distribution without one."""
    axes: dict[str, tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]] = {}
    """Smallest and largest size of each dynamic axis by name; 1 and 16 without one."""
    cases: list[RelativePath] = []
    """Case files (globs): JSON `{"inputs": {NAME: [values] | {"file": PATH}}, "outputs": {NAME: [values]}}` for one
    item."""
    inputs: list[RelativePath] = []
    """Files of real inputs (globs): `.npz` with one array an input, with the batch axis; the source answers them."""
    generated: bool = True
    """Generate cases from the signature. False where only real inputs make sense, such as shapes and indices that must
    agree: the files of `inputs` are then all that proves the model."""
    tolerance: Tolerance | None = None
    """The distance that a served answer may have from its reference."""

    @model_validator(mode="after")
    def _something_proves_it(self) -> Self:
        if not self.generated and not self.inputs:
            raise ValueError("`generated: false` leaves nothing that proves the model: name files of real `inputs`")
        return self


class RouterSpec(Strict):
    """Puts a model behind a business-logic-scripting router that owns its public name."""

    template: str = "bls"
    """The router in `templates/routers/`, or the path of your own."""


class ModelOverride(Strict):
    """What differs on one platform."""

    backend: Name | None = None
    """Another backend on this platform."""
    variant: Name | None = None
    """The variant that this platform serves, whatever `forge.lock` chose."""
    template: str | None = None
    """Another house style on this platform."""
    max_batch_size: Annotated[int, Field(ge=0)] | None = None
    """Another largest batch on this platform; 0 is no batching."""
    config: dict[str, Any] = {}
    """`ModelConfig` fields of this platform alone, over all others."""


class Servable(Strict):
    """What a model and an ensemble have in common."""

    description: str | None = None
    """What it is; shown in reports."""
    template: str | None = None
    """House style of `config.pbtxt`: `default`, `latency`, `throughput`, `edge`, or the path of your own template."""
    config: dict[str, Any] = {}
    """Any field of Triton's `ModelConfig`, by its protobuf name; laid over what is derived and what the template
    says."""
    max_batch_size: Annotated[int, Field(ge=0)] | None = None
    """Largest batch; 0 is no batching. Without it the template chooses for models that can batch."""
    golden: GoldenSpec = GoldenSpec()
    """The cases that prove it."""
    version: Annotated[int, Field(ge=1, le=2**62)] | None = None
    """Ask for this version number; refused when it is taken by another artefact."""
    folder: Name | None = None
    """The folder's name in the repository, where it is not the public name."""
    router: bool | RouterSpec = False
    """Put it behind a router from its first release; the folder is then `NAME--c1`."""
    platforms: dict[Name, ModelOverride] = {}
    """What differs on a platform, by its name."""
    only: list[Name] | None = None
    """Build it for these platforms alone."""


PASSTHROUGH: Final = ("passthrough", "triton")
"""The formats that are served as they are."""

CONVERTING: Final = {
    "torch",
    "tensorflow",
    "huggingface",
    "batched",
    "requirements",
    "environment",
    "export",
    "simplify",
    "quantize",
    "onnxruntime",
    "pytorch",
    "openvino",
    "sequence",
    "variants",
    "versions",
    "tolerance",
    "template",
}
"""What only a source that is loaded, converted or styled has a use for."""

ROUND_THE_FOLDER: Final = {"base", "inputs", "outputs", "files", "folder_files"}
"""What the folder itself says, where the source is the folder of a repository."""


class ModelSpec(Servable):
    """One model: where it comes from, and how it is served."""

    source: SourceRef
    """The trained model: a file, a folder, a hub id, or an architecture by its name."""
    format: (
        Literal[
            "onnx",
            "python",
            "torchscript",
            "torch-export",
            "torch-module",
            "torch-pickle",
            "savedmodel",
            "keras",
            "graphdef",
            "tf-checkpoint",
            "huggingface",
            "passthrough",
            "triton",
        ]
        | None
    ) = None
    """What the source is; told from its name and content when absent. `torch-module` is a class or function with a
    state dict. Two are served as they are, by any backend, with the config as given: `passthrough` is what a version
    folder gets; `triton` is a model's folder of a Triton repository, with its `config.pbtxt`, its versions under their
    numbers, and the files beside them."""
    base: SourceRef | None = None
    """For `format: passthrough`: a `config.pbtxt` that is taken as it is; `config` is laid over it."""
    torch: TorchSource = TorchSource()
    """For PyTorch sources: how they are loaded."""
    tensorflow: TensorFlowSource = TensorFlowSource()
    """For TensorFlow sources: how they are loaded."""
    huggingface: HuggingFaceSource = HuggingFaceSource()
    """For Hugging Face sources: how they are loaded."""
    backend: Name | None = None
    """The Triton backend; `onnxruntime`, or `python` for Python, when absent."""
    inputs: dict[str, TensorDecl] = {}
    """Inputs of a Python or PyTorch model (required there); else refinements of what the file says."""
    outputs: dict[str, TensorDecl] = {}
    """Outputs, likewise."""
    batched: bool | None = None
    """Whether axis 0 is the batch; derived and probed when absent."""
    files: dict[RelativePath, SourceRef] = {}
    """Further files of the version folder, by the path that they get there."""
    folder_files: dict[RelativePath, SourceRef] = {}
    """Files of the model's folder (labels, warm-up data, initial states), by the path that they get there."""
    requirements: list[str] = []
    """Packages that a Python model needs, as in a requirements file; shipped beside it, checked before serving."""
    environment: SourceRef | None = None
    """A packed Python environment (a `.tar.gz` of conda-pack) that the Python backend unpacks and runs this model in;
    its Python has the version of the backend's stub."""
    export: ExportSpec = ExportSpec()
    """For sources that become ONNX: how."""
    simplify: bool = False
    """Simplify the ONNX graph (onnxslim) and compare the result with the source."""
    quantize: QuantizeSpec | None = None
    """Fewer bits a weight."""
    onnxruntime: OnnxRuntimeSpec = OnnxRuntimeSpec()
    """For the onnxruntime backend: what it gets."""
    pytorch: PytorchSpec = PytorchSpec()
    """For the pytorch backend: what it gets."""
    openvino: OpenVinoSpec = OpenVinoSpec()
    """For the openvino backend: what it gets."""
    sequence: SequenceSpec | None = None
    """What it keeps between the requests of one sequence, where it does: served by Triton's sequence batcher with
    implicit state (onnxruntime backend). `inputs` and `outputs` are then those that clients see."""
    variants: dict[Name, Variant] = {}
    """Several ways of serving it, by name. All are built and compared with the source; `forge.lock` has the one that
    is served, which `tritonforge choose` measures, and the first stands in until then."""
    versions: dict[Name, Variant] = {}
    """Several versions in one release, by a name of yours, oldest first. They share backend, signature and config."""
    tolerance: Tolerance | None = None
    """How far a converted artefact may be from its source; by precision when absent."""
    timeout_s: Annotated[int, Field(ge=1)] = 3600
    """The longest that one step of building this model may take, in seconds; a step that hangs is ended then."""
    memory_mb: Annotated[int, Field(ge=1)] | None = None
    """Memory that building this model may need; estimated from its size when absent."""

    @model_validator(mode="after")
    def _nothing_converts_what_is_passed_through(self) -> Self:
        if self.format in PASSTHROUGH:
            unread = CONVERTING | (ROUND_THE_FOLDER if self.format == "triton" else set())
        else:
            unread = {"base"}
        said = sorted(key for key in unread & self.model_fields_set if getattr(self, key) is not None)
        if said:
            what = f"a model with `format: {self.format}`" if self.format else "a model that is converted"
            raise ValueError(f"nothing reads `{said[0]}` of {what}; `{said[0]}: null` leaves a default out")
        return self

    @model_validator(mode="after")
    def _variants_or_versions(self) -> Self:
        if self.variants and self.versions:
            raise ValueError("give either `variants` (one is served) or `versions` (all are served)")
        if self.versions and (self.version is not None or self.router):
            raise ValueError("`versions` get their numbers from forge.lock, and stand behind no router")
        for name, version in self.versions.items():
            if version.backend is not None or version.config or version.max_batch_size is not None:
                raise ValueError(f"`versions.{name}`: versions of one model share backend, config and batch size")
            if name == "latest":
                raise ValueError("a version is not called `latest`: that is the newest one")
        return self


class StepSpec(Strict):
    """One step of an ensemble."""

    model: Name
    """Public name of the model or ensemble that runs."""
    version: Annotated[int, Field(ge=1)] | Name | None = None
    """Pinned to the version of the same release when absent; a name is one of the member's `versions`; `latest`
    follows the newest one (Triton's -1)."""
    inputs: dict[str, str] = {}
    """Model input → ensemble tensor, where the names differ."""
    outputs: dict[str, str] = {}
    """Model output → ensemble tensor, where the names differ; unlisted outputs keep their names."""


class EnsembleSpec(Servable):
    """Models wired into one. Types are taken from the members and checked along every wire."""

    inputs: dict[str, TensorDecl | None] | list[str]
    """Names, or names with types; types come from the first consumer when absent."""
    outputs: dict[str, TensorDecl | None] | list[str]
    """Names, or names with types; types come from the producer when absent."""
    steps: Annotated[list[StepSpec], Field(min_length=1)]
    """What runs; the order follows from the wires."""


class PlatformSpec(Strict):
    """What artefacts are built for."""

    triton: Annotated[str, StringConstraints(pattern=r"^(embedded|\d{2}\.\d{2})$")] = "embedded"
    """Triton's container release, such as `24.10`, which decides the config schema; `embedded` is tritonforge's own
    server."""
    processor: Literal["x86_64", "aarch64", "native"] = "native"
    """The processor that serves."""
    gpu: str | None = None
    """GPU architecture, such as `sm_80`; none means instances run on the CPU."""
    gpus: Annotated[int, Field(ge=0)] | None = None
    """How many GPUs a server has; 1 where `gpu` is given."""
    tensorrt: str | None = None
    """TensorRT's version on the target."""
    jetpack: str | None = None
    """JetPack's version, for a Jetson."""
    image: str | None = None
    """The image that serves, best with its digest (`…@sha256:…`); it is part of the release, and what containers of
    its targets run unless they say otherwise. NVIDIA's of the `triton` release when absent."""
    config: dict[str, Any] = {}
    """`ModelConfig` fields of every model on this platform, under those of the models."""


def _size(text: str) -> str:
    try:
        size_in_bytes(text)
    except SpecError as error:
        raise ValueError(f"{error.message}; expected {error.expected}") from None
    return text


Size = Annotated[str, AfterValidator(_size)]
"""A number of bytes, such as `64MiB`."""

_OWNED: Final = {
    "model-repository": "tritonforge serves the release",
    "model-control-mode": "tritonforge loads the release's models itself",
    "load-model": "tritonforge loads the release's models itself",
    "http-port": "say it with `tritonforge serve --http-port`",
    "http-address": "say it with `tritonforge serve --host`",
    "grpc-port": "say it with `tritonforge serve --grpc-port`",
    "grpc-address": "say it with `tritonforge serve --host`",
    "metrics-port": "say it with `tritonforge serve --metrics-port`",
    "metrics-address": "say it with `tritonforge serve --host`",
    "backend-directory": "the runtime has its backends where it needs them",
    "strict-readiness": "say it with `server.readiness.strict`",
    "exit-on-error": "say it with `server.readiness.exit_on_error`",
    "exit-timeout-secs": "say it with `server.readiness.exit_timeout_s`",
    "model-load-thread-count": "say it with `server.model_load_threads`",
    "log-file": "say it with `tritonforge serve --log`",
}
"""Options that are set where the server is launched, or by a key of their own; and what to do instead."""


def _option_name(name: str) -> str:
    if name in _OWNED:
        raise ValueError(f"the option '{name}' is not the spec's to set: {_OWNED[name]}")
    return name


OptionName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+$"), AfterValidator(_option_name)]


class CacheSettings(Strict):
    """Triton's response cache."""

    kind: Literal["local", "redis"] = "local"
    """The cache implementation."""
    size: Size | None = None
    """Size of the local cache, such as `64MiB`."""
    options: dict[str, str] = {}
    """Further `--cache-config` settings."""


class RateLimiterSettings(Strict):
    """Triton's rate limiter."""

    mode: Literal["off", "execution_count"] = "off"
    """`--rate-limit`."""
    resources: list[str] = []
    """`--rate-limit-resource` values: `NAME:COUNT[:DEVICE]`."""


class MemorySettings(Strict):
    """Memory pools of the server."""

    pinned_pool: Size | None = None
    """`--pinned-memory-pool-byte-size`, such as `256MiB`."""
    cuda_pool: dict[int, Size] = {}
    """`--cuda-memory-pool-byte-size` by GPU."""
    python_shared: Size | None = None
    """Shared memory of each Python model instance (`shm-default-byte-size`)."""
    python_shared_growth: Size | None = None
    """Step by which it grows (`shm-growth-byte-size`)."""


class TracingSettings(Strict):
    """Request tracing."""

    mode: Literal["triton", "opentelemetry"] = "triton"
    """`--trace-config mode=`."""
    level: list[Literal["TIMESTAMPS", "TENSORS"]] = ["TIMESTAMPS"]
    """What is traced."""
    rate: Annotated[int, Field(ge=1)] = 1000
    """One request in this many."""
    options: dict[str, str] = {}
    """Settings of the mode, such as `file` or `url`."""


class ReadinessSettings(Strict):
    """When the server says that it is ready, and how it ends."""

    strict: bool = True
    """`--strict-readiness`: every model must be ready."""
    exit_on_error: bool = True
    """`--exit-on-error`: do not start with a model that fails to load."""
    exit_timeout_s: Annotated[int, Field(ge=0)] = 30
    """`--exit-timeout-secs`."""


class ServerSettings(Strict):
    """How Triton is started with a release of this spec."""

    cache: CacheSettings | None = None
    """Response cache; models use it through `response_cache { enable: true }`."""
    backends: dict[Name, dict[str, str | int | float | bool]] = {}
    """`--backend-config` by backend."""
    rate_limiter: RateLimiterSettings = RateLimiterSettings()
    """Rate limiter."""
    memory: MemorySettings = MemorySettings()
    """Memory pools."""
    tracing: TracingSettings | None = None
    """Request tracing; off when absent."""
    readiness: ReadinessSettings = ReadinessSettings()
    """Readiness and exit."""
    model_load_threads: Annotated[int, Field(ge=1)] | None = None
    """`--model-load-thread-count`."""
    metrics: bool = True
    """Serve Prometheus metrics."""
    options: dict[OptionName, str | int | float | bool] = {}
    """Any other server option by its name without dashes in front, such as `log-verbose: 1`."""


class SloSpec(Strict):
    """Bounds that a model must keep; at least one."""

    throughput_min: Annotated[float, Field(gt=0)] | None = None
    """Inferences a second, at least."""
    p50_ms: Annotated[float, Field(gt=0)] | None = None
    """Median latency, at most, in milliseconds."""
    p95_ms: Annotated[float, Field(gt=0)] | None = None
    """95th percentile, at most."""
    p99_ms: Annotated[float, Field(gt=0)] | None = None
    """99th percentile, at most."""
    error_rate_max: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of failed requests, at most."""


class GateSpec(Strict):
    """A condition on speed, measured by perf_analyzer."""

    model: Name
    """Public name of the model or ensemble."""
    slo: SloSpec
    """The bounds."""
    protocol: Literal["grpc", "http"] = "grpc"
    """The protocol of the load."""
    concurrency: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] = [1]
    """Requests in flight; the bounds hold at each level."""
    batch_size: Annotated[int, Field(ge=1)] = 1
    """Items in a request."""
    interval_ms: Annotated[int, Field(ge=100)] = 1000
    """Length of one measurement window."""
    windows: Annotated[int, Field(ge=5, le=1000)] = 10
    """Windows of each level; intervals are computed over them, so more of them decide closer calls."""
    axes: dict[str, Annotated[int, Field(ge=1)]] = {}
    """Sizes of dynamic axes in the generated load."""
    platforms: list[Name] | None = None
    """Platforms on which it is asked; all when absent."""


class Retention(Strict):
    """Which releases are kept."""

    releases: Annotated[int, Field(ge=1)] = 10
    """This many newest ones, besides every one in use."""


class EnvVar(Strict):
    """An environment variable that the spec may use as `${NAME}`."""

    default: str | None = None
    """Its value where it is not set; without one it must be set."""
    description: str | None = None
    """What it is for."""


class Defaults(Strict):
    """What every model, ensemble and gate has unless it says otherwise. Mappings merge; everything else is replaced."""

    model: dict[str, Any] = {}
    """Keys of a model."""
    ensemble: dict[str, Any] = {}
    """Keys of an ensemble."""
    gate: dict[str, Any] = {}
    """Keys of a gate."""


class ForgeSpec(Strict):
    """The whole of `forge.yaml`."""

    apiVersion: Literal["tritonforge/v1"]  # noqa: N815 - Kubernetes' spelling, on purpose
    """`tritonforge/v1`."""
    name: Name
    """The repository's name."""
    description: str | None = None
    """What it serves."""
    env: dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], EnvVar | None] = {}
    """Environment variables that values may use as `${NAME}`; no other is read."""
    include: list[RelativePath] = []
    """Specs to lay this one over, relative to it."""
    platforms: dict[Name, PlatformSpec] = {"local": PlatformSpec()}
    """What is built for; `local`, on the embedded Triton, when absent. The first is the default."""
    templates: list[RelativePath] = []
    """Folders with your own Jinja2 templates; they come before the house's."""
    defaults: Defaults = Defaults()
    """What models, ensembles and gates have in common."""
    server: ServerSettings = ServerSettings()
    """How Triton is started."""
    connections: dict[Name, ConnectionSpec] = {}
    """Servers that commands can be pointed at with `--server NAME`."""
    models: dict[Name, ModelSpec] = {}
    """The models by public name."""
    ensembles: dict[Name, EnsembleSpec] = {}
    """The ensembles by public name."""
    gates: dict[Name, GateSpec] = {}
    """The gates by name."""
    targets: dict[Name, TargetSpec] = {}
    """Where releases are deployed to, for `tritonforge deploy NAME`."""
    retention: Retention = Retention()
    """How many old releases stay on disk."""
    store: StoreSpec | None = None
    """A store that a team shares, behind the local one."""

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        both = sorted(self.models.keys() & self.ensembles.keys())
        if both:
            raise ValueError(f"'{both[0]}' is both a model and an ensemble: public names are unique")
        if not self.models and not self.ensembles:
            raise ValueError("no models: give at least one under `models:`")
        if not self.platforms:
            raise ValueError("no platforms: give at least one, or leave `platforms:` out")
        return self

    def servables(self) -> dict[str, ModelSpec | EnsembleSpec]:
        """Models and ensembles by public name."""
        return {**self.models, **self.ensembles}
