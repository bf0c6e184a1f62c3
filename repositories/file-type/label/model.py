"""From the network's scores to the label that the magika library gives in its high-confidence mode."""

import json
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        folder = Path(args["model_repository"]) / args["model_version"]
        config = json.loads((folder / "config.min.json").read_text())
        self.labels = config["target_labels_space"]
        self.thresholds = config["thresholds"]
        self.threshold = config["medium_confidence_threshold"]
        self.overwrites = config["overwrite_map"]
        self.kinds = json.loads((folder / "content_types_kb.min.json").read_text())

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        scores = pb_utils.get_input_tensor_by_name(request, "target_label").as_numpy()
        rules = pb_utils.get_input_tensor_by_name(request, "RULE").as_numpy().reshape(-1)
        best = scores.argmax(axis=1)
        texts = np.empty((3, len(rules), 1), dtype=object)
        certainty = np.ones((len(rules), 1), dtype=np.float32)
        for row, rule in enumerate(rules):
            if rule:
                label = rule.decode()
            else:
                certainty[row, 0] = scores[row, best[row]]
                label = self.decide(self.labels[best[row]], float(certainty[row, 0]))
            group = self.kinds[label]["group"] or "unknown"
            texts[:, row, 0] = [text.encode() for text in (label, self.mime(label), group)]
        names = ("LABEL", "MIME", "GROUP")
        tensors = [pb_utils.Tensor(name, texts[index]) for index, name in enumerate(names)]
        return pb_utils.InferenceResponse([*tensors, pb_utils.Tensor("SCORE", certainty)])

    def decide(self, guess, score):
        """The guess where it is certain enough for its kind; else only whether it is text."""
        label = self.overwrites.get(guess, guess)
        if score >= self.thresholds.get(guess, self.threshold):
            return label
        return "txt" if self.kinds[label]["is_text"] else "unknown"

    def mime(self, label):
        known = self.kinds[label]
        return known["mime_type"] or ("text/plain" if known["is_text"] else "application/octet-stream")
