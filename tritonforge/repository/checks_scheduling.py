"""Checks of batching, priorities, the response cache and metrics. Source: core ``ValidateModelConfig``."""

from __future__ import annotations

from typing import Any

from tritonforge.repository.subject import Subject

_ONLY_BATCHING = ("preferred_batch_size", "max_queue_delay_microseconds")
_QUEUE = (
    "preserve_ordering", "priority_levels", "default_priority_level", "default_queue_policy", "priority_queue_policy"
)  # fmt: skip


def check(subject: Subject) -> None:
    """Raises SpecError for the first thing that is wrong."""
    _largest_batch(subject)
    if subject.message.HasField("dynamic_batching"):
        _dynamic(subject)
        _priorities(subject)
        _ordering(subject)
    _response_cache(subject)
    _ensemble(subject)
    _metrics(subject)


def _largest_batch(subject: Subject) -> None:
    largest = subject.message.max_batch_size
    if largest < 0:
        raise subject.wrong(("max_batch_size",), "`max_batch_size` is negative", expected="0 or more", found=largest)
    if largest > 0 and not subject.request.signature.batched:
        raise subject.wrong(
            ("max_batch_size",),
            "the model does not batch: axis 0 of its inputs and outputs is no batch axis",
            expected="max_batch_size: 0",
            found=largest,
            hint="with a batch size above 0 Triton would put an axis in front of every tensor",
        )


def preferred(subject: Subject, sizes: Any, path: tuple[str, ...]) -> None:
    """Preferred batch sizes are positive and no larger than the largest batch."""
    for index, size in enumerate(sizes):
        if not 0 < size <= subject.message.max_batch_size:
            raise subject.wrong(
                (*path, "preferred_batch_size", index),
                "a preferred batch size is out of range",
                expected=f"1 to max_batch_size, which is {subject.message.max_batch_size}",
                found=size,
            )


def _dynamic(subject: Subject) -> None:
    batching = subject.message.dynamic_batching
    path = ("dynamic_batching",)
    if not subject.batching:
        # The batcher is also Triton's queue: what concerns the queue works without batches, the rest is void.
        said = {field.name for field, _ in batching.ListFields()}
        if said & set(_ONLY_BATCHING) or not said & set(_QUEUE):
            raise subject.wrong(
                path,
                "`dynamic_batching` has nothing to batch: `max_batch_size` is 0",
                expected="a max_batch_size above 0, or no dynamic_batching",
                hint="`dynamic_batching: null` removes it"
                if subject.request.signature.batched
                else "the model does not batch; `dynamic_batching: null` removes it",
            )
    preferred(subject, batching.preferred_batch_size, path)


def _priorities(subject: Subject) -> None:
    batching = subject.message.dynamic_batching
    levels = batching.priority_levels
    path = ("dynamic_batching",)
    if levels == 0:
        for name in ("default_priority_level", "priority_queue_policy"):
            if any(field.name == name for field, _ in batching.ListFields()):
                raise subject.wrong(
                    (*path, name), f"`{name}` needs priorities", expected="priority_levels: 1 or more", found="none"
                )
        return
    if not 1 <= batching.default_priority_level <= levels:
        raise subject.wrong(
            (*path, "default_priority_level"),
            "`default_priority_level` is out of range",
            expected=f"1 to {levels} (priority_levels)",
            found=batching.default_priority_level or "none",
        )
    for level in batching.priority_queue_policy:
        if not 1 <= level <= levels:
            raise subject.wrong(
                (*path, "priority_queue_policy", str(level)),
                "a queue policy is for a priority that does not exist",
                expected=f"1 to {levels} (priority_levels)",
                found=level,
            )


def _ordering(subject: Subject) -> None:
    batching = subject.message.dynamic_batching
    path = ("dynamic_batching",)
    if not batching.preserve_ordering:
        return
    if batching.priority_levels > 1:
        raise subject.wrong(
            (*path, "preserve_ordering"),
            "`preserve_ordering` and several priorities exclude each other",
            expected="at most one priority level",
            found=f"priority_levels: {batching.priority_levels}",
        )
    policies: list[tuple[tuple[str, ...], Any]] = [((*path, "default_queue_policy"), batching.default_queue_policy)]
    policies += [((*path, "priority_queue_policy", str(k)), v) for k, v in batching.priority_queue_policy.items()]
    for where, policy in policies:
        if policy.default_timeout_microseconds != 0 and policy.timeout_action == policy.DELAY:
            raise subject.wrong(
                (*where, "timeout_action"),
                "`preserve_ordering` and delaying of requests that time out exclude each other",
                expected="timeout_action: REJECT",
                found="DELAY",
            )


def _response_cache(subject: Subject) -> None:
    message = subject.message
    if not message.response_cache.enable:
        return
    if message.model_transaction_policy.decoupled:
        raise subject.wrong(
            ("response_cache", "enable"), "Triton caches no responses of decoupled models", expected="enable: false"
        )
    if message.HasField("sequence_batching"):
        raise subject.wrong(
            ("response_cache", "enable"),
            "Triton caches no responses of models with sequence batching",
            expected="enable: false",
        )


def _ensemble(subject: Subject) -> None:
    message = subject.message
    ensemble = subject.request.backend == "ensemble"
    if not ensemble:
        if message.HasField("ensemble_scheduling"):
            raise subject.wrong(
                ("ensemble_scheduling",),
                "only an ensemble has `ensemble_scheduling`",
                hint="declare it under `ensembles:`",
            )
        return
    if not message.ensemble_scheduling.step:
        raise subject.wrong(("ensemble_scheduling",), "the ensemble has no steps", expected="at least one step")
    for name, reason in (
        ("instance_group", "an ensemble runs nothing itself: it has no instances"),
        ("optimization", "an ensemble runs nothing itself: there is nothing to optimize"),
        ("model_warmup", "Triton does not warm ensembles up: warm their members up"),
    ):
        if any(field.name == name for field, _ in message.ListFields()):
            raise subject.wrong((name,), f"Triton refuses `{name}` for an ensemble", hint=reason)


def _metrics(subject: Subject) -> None:
    if not any(field.name == "model_metrics" for field, _ in subject.message.ListFields()):
        return
    for index, control in enumerate(subject.message.model_metrics.metric_control):
        path = ("model_metrics", "metric_control", index)
        if not control.metric_identifier.family:
            raise subject.wrong(path, "a metric control names no metric", expected="metric_identifier: {family: …}")
        if not control.histogram_options.buckets:
            raise subject.wrong(path, "a metric control has no buckets", expected="histogram_options: {buckets: […]}")
