"""Serve a configuration made for GPUs on a server that has none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig


def cpu_override(config: ModelConfig) -> dict[str, Any] | None:
    """The whole configuration as JSON for a load call, with its instance groups on the CPU; None when none needs it.

    Accelerators of GPU instances are left out with them.

    Triton refuses ``KIND_GPU``, and ``KIND_AUTO`` with GPUs named, on a machine without a GPU. The override is for
    the load call alone: the published file stays as it is. It sticks through later plain loads until a restart.
    Source: Triton core ``model_config_utils.cc`` (``ValidateInstanceGroup``), run on 24.10.
    """
    from google.protobuf import json_format
    from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup

    gpu = ModelInstanceGroup.KIND_GPU
    instances = any(group.kind == gpu or group.gpus or group.secondary_devices for group in config.instance_group)
    accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
    if not instances and not accelerators:
        return None
    changed = type(config)()
    changed.CopyFrom(config)
    for group in changed.instance_group:
        if group.kind == gpu or group.gpus or group.secondary_devices:
            group.kind = ModelInstanceGroup.KIND_CPU
            del group.gpus[:]
            # Secondary devices are DLA cores beside a GPU.
            del group.secondary_devices[:]
    if accelerators:
        # They work for GPU instances alone (ONNX Runtime backend); on the CPU there is nothing that they could do.
        del changed.optimization.execution_accelerators.gpu_execution_accelerator[:]
    plain: dict[str, Any] = json_format.MessageToDict(changed, preserving_proto_field_name=True)
    return plain
