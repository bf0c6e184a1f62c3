"""A network of transformers as a module that takes its task's inputs in their order. Only loading imports it."""

from __future__ import annotations

from typing import Any

import torch

from tritonforge.sources.huggingface.call import Call


class TaskModule(torch.nn.Module):
    """Takes the tensors of ``call.inputs`` by position, and answers with those of ``call.outputs`` by name.

    Floating tensors come and go in FP32 whatever the precision of the weights.
    """

    def __init__(self, model: torch.nn.Module, call: Call) -> None:
        super().__init__()
        self.model = model
        self.call = call
        self.input_names = tuple(tensor.name for tensor in call.inputs)
        self.dtype = next((weight.dtype for weight in model.parameters() if weight.is_floating_point()), torch.float32)

    def forward(self, *tensors: torch.Tensor) -> dict[str, torch.Tensor]:
        given = {
            name: tensor.to(self.dtype) if tensor.is_floating_point() and self.dtype != torch.float32 else tensor
            for name, tensor in zip(self.input_names, tensors, strict=True)
        }
        found = self._answers(given)
        return {
            name: value.float() if value.is_floating_point() and value.dtype != torch.float32 else value
            for name, value in found.items()
        }

    def _answers(self, given: dict[str, torch.Tensor]) -> dict[str, Any]:
        task = self.call.task
        if task == "zero-shot-object-detection":
            given = {
                name: value if name == "pixel_values" else value.reshape(-1, value.shape[-1])
                for name, value in given.items()
            }
        elif task == "text-generation":
            given["use_cache"] = False  # type: ignore[assignment]
        elif task == "text-generation-with-past":
            return self._continued(given)
        found = self.model(**given, return_dict=True)
        return {name: found[name] for name in self.call.outputs}

    def _continued(self, given: dict[str, torch.Tensor]) -> dict[str, Any]:
        """One step of a decoder, with the cache that transformers wants made of plain tensors, and back."""
        from transformers import DynamicCache

        past = [value for name, value in given.items() if name.startswith("past_key_values.")]
        cache = DynamicCache(list(zip(past[::2], past[1::2], strict=True)))
        new = {name: value for name, value in given.items() if not name.startswith("past_key_values.")}
        found = self.model(**new, past_key_values=cache, use_cache=True, return_dict=True)
        answers = {"logits": found.logits}
        for index, layer in enumerate(found.past_key_values.layers):
            answers[f"present.{index}.key"] = layer.keys
            answers[f"present.{index}.value"] = layer.values
        return answers
