"""The graph of a spec on one platform."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from tritonforge.build.graph import Graph, Line, ModelNodes, Node
from tritonforge.build.imports import Importing, extra_files, golden_axes, golden_ranges, plan_import
from tritonforge.build.lines import BACKENDS, Start, plan_line
from tritonforge.build.passthrough import plan_passthrough
from tritonforge.build.sequences import sequence_config
from tritonforge.errors import ForgeError, SpecError, did_you_mean
from tritonforge.sources.resolve import Resolver
from tritonforge.spec.conversion.effective import conversions
from tritonforge.spec.load import LoadedSpec
from tritonforge.spec.models import PASSTHROUGH, ModelSpec
from tritonforge.spec.platform import Platform
from tritonforge.steps.export.packed_environment import ENVIRONMENT

DEFAULT_LARGEST_BATCH: Final = 8
"""The largest batch that golden cases have where the spec leaves `max_batch_size` to the template."""


def wanted_on(only: list[str] | None, platform: Platform) -> bool:
    """Whether a model, ensemble or gate is asked for on this platform."""
    return only is None or platform.name in only


def plan_graph(loaded: LoadedSpec, platform: Platform, resolver: Resolver) -> Graph:
    """The graph of every model that the platform wants. A model that cannot be planned leaves the others untouched."""
    graph = Graph()
    for name, model in loaded.spec.models.items():
        if not wanted_on(model.only, platform):
            continue
        try:
            graph.models[name] = _plan_model(Importing(graph, name, model, loaded, resolver), platform)
        except ForgeError as error:
            graph.errors[name] = error
    return graph


def _plan_model(asked: Importing, platform: Platform) -> ModelNodes:
    graph, name, model = asked.graph, asked.name, asked.model
    if model.format in PASSTHROUGH:
        return plan_passthrough(asked)
    imported = plan_import(asked)
    sequence = sequence_config(asked, imported.format, _stated_batch(model, platform))
    golden = None
    if imported.format != "python" or imported.kind == "processor":
        golden = _golden(asked, imported.kind, imported.format, imported.node, platform, sequence)
    start = Start(name, imported.format, imported.node, golden, _precision(model, imported.kind), sequence)
    override = model.platforms.get(platform.name)
    lines = []
    for conversion in conversions(model):
        backend = (override.backend if override else None) or conversion.backend or BACKENDS[imported.format][0]
        at = ("variants", conversion.label, "backend") if conversion.label in model.variants else ("backend",)
        lines.append(plan_line(graph, start, conversion, backend, asked.place(*at)))
    served, chosen_by = _served(asked, tuple(lines), platform)
    return ModelNodes(
        imported.kind,
        imported.format,
        imported.node,
        tuple(lines),
        served,
        golden,
        _folder_files(asked, [line.backend for line in lines]),
        chosen_by,
    )


def _precision(model: ModelSpec, kind: str) -> str:
    """The precision of the weights, which decides how near a conversion can be."""
    return model.huggingface.dtype if kind == "huggingface" else "fp32"


def _served(asked: Importing, lines: tuple[Line, ...], platform: Platform) -> tuple[tuple[Line, ...], str | None]:
    """The lines of the release, and what chose among variants: ``spec``, ``lock``, ``order``, or ``gone``.

    ``gone`` is the order too, where the lock names a variant that is no longer there.
    """
    model = asked.model
    override = model.platforms.get(platform.name)
    if not model.variants:
        if override is not None and override.variant is not None:
            raise SpecError(
                "the model has no `variants` of which one could be served",
                place=asked.place("platforms", platform.name, "variant"),
                found=override.variant,
            )
        return lines, None
    choice = asked.resolver.lock.choices.get(platform.name, {}).get(asked.name)
    by_label = {line.label: line for line in lines}
    if override is not None and override.variant is not None:
        if override.variant not in by_label:
            raise SpecError(
                f"the model has no variant '{override.variant}'",
                place=asked.place("platforms", platform.name, "variant"),
                hint=did_you_mean(override.variant, by_label),
            )
        return (by_label[override.variant],), "spec"
    if choice is not None and choice.variant in by_label:
        return (by_label[choice.variant],), "lock"
    return (lines[0],), "order" if choice is None else "gone"


def _stated_batch(model: ModelSpec, platform: Platform) -> int | None:
    override = model.platforms.get(platform.name)
    return (
        override.max_batch_size
        if override is not None and override.max_batch_size is not None
        else model.max_batch_size
    )


def _golden(
    asked: Importing, kind: str, format_: str, imported: str, platform: Platform, sequence: Mapping[str, Any] | None
) -> str:
    model = asked.model
    stated = _stated_batch(model, platform)
    largest = DEFAULT_LARGEST_BATCH if stated is None else max(1, stated)
    config = {
        "format": "huggingface" if kind in ("huggingface", "processor") else format_,
        "seed": model.golden.seed,
        "axes": golden_axes(model),
        "ranges": golden_ranges(model),
        "batches": sorted({1, min(3, largest), largest, *_fixed_batches(model)}),
        "tolerance": None if model.golden.tolerance is None else model.golden.tolerance.model_dump(exclude_none=True),
    }
    if not model.golden.generated:
        config["generated"] = False
    files = {}
    for pattern in model.golden.inputs:
        files.update(asked.resolver.glob(pattern, asked.place("golden", "inputs")))
    step = "golden" if sequence is None else "golden-sequences"
    config.update(sequence or {})
    return asked.graph.add(Node(f"{asked.name}/golden", asked.name, step, config, {"model": imported}, files))


def _fixed_batches(model: ModelSpec) -> list[int]:
    """Batch sizes that OpenVINO lines are fixed to: they need cases of just that size."""
    sizes = [conversion.openvino.shapes.get("batch") for conversion in conversions(model)]
    return [size for size in sizes if size is not None]


def _folder_files(asked: Importing, backends: Iterable[str]) -> str | None:
    model: ModelSpec = asked.model
    files = extra_files(asked, model.folder_files, ("folder_files",)) if model.folder_files else {}
    for path in files:
        first = path.split("/", 1)[0]
        if first == "config.pbtxt" or first[:1].isdigit() or first == "configs":
            raise SpecError(
                "this path belongs to Triton",
                place=asked.place("folder_files", path),
                expected="neither config.pbtxt, nor configs/, nor a name that begins with a digit",
                found=path,
            )
    config = {}
    if model.environment is not None:
        other = sorted(set(backends) - {"python"})
        if other or ENVIRONMENT in files:
            raise SpecError(
                f"an environment is for the Python backend, not for '{other[0]}'"
                if other
                else f"`folder_files` has an {ENVIRONMENT} of its own",
                place=asked.place("environment"),
            )
        files[ENVIRONMENT] = asked.resolver.file(model.environment, asked.place("environment"))
        config = {"environment": ENVIRONMENT}
    if not files:
        return None
    return asked.graph.add(Node(f"{asked.name}/folder-files", asked.name, "collect", config, {}, files))
