"""From the network's scores to names: the five likeliest ImageNet classes with their probabilities."""

from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

BEST = 5


class TritonPythonModel:
    def initialize(self, args):
        folder = Path(args["model_repository"]) / args["model_version"]
        lines = (folder / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
        names = dict(line.split("\t", 1) for line in lines)
        self.names = [names[synset] for synset in (folder / "imagenet_synsets.txt").read_text().split()]

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        logits = pb_utils.get_input_tensor_by_name(request, "logits").as_numpy().astype(np.float64)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        best = np.argsort(-shares, axis=1, kind="stable")[:, :BEST]
        labels = np.empty(best.shape, dtype=object)
        labels.reshape(-1)[:] = [self.names[index].encode() for index in best.reshape(-1)]
        scores = np.take_along_axis(shares, best, axis=1).astype(np.float32)
        return pb_utils.InferenceResponse([pb_utils.Tensor("LABEL", labels), pb_utils.Tensor("SCORE", scores)])
