"""The features of magika's network: the first and the last bytes of a file as token ids.

A file without enough bytes for the network gets a rule instead: ``empty``, ``txt`` or ``unknown``.
"""

import json
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        folder = Path(args["model_repository"]) / args["model_version"]
        config = json.loads((folder / "config.min.json").read_text())
        if config["mid_size"] or config["use_inputs_at_offsets"]:
            raise pb_utils.TritonModelException("this network reads features that this model does not make")
        self.begin, self.end = config["beg_size"], config["end_size"]
        self.block = config["block_size"]
        self.padding = config["padding_token"]
        self.fewest = config["min_file_size_for_dl"]

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        contents = pb_utils.get_input_tensor_by_name(request, "CONTENT").as_numpy().reshape(-1)
        tokens = np.full((len(contents), self.begin + self.end), self.padding, dtype=np.int32)
        rules = np.empty((len(contents), 1), dtype=object)
        for row, content in enumerate(contents):
            rules[row, 0] = self.rule(content)
            if not rules[row, 0]:
                self.fill(tokens[row], content)
        return pb_utils.InferenceResponse([pb_utils.Tensor("bytes", tokens), pb_utils.Tensor("RULE", rules)])

    def rule(self, content):
        """The label of a file that is too short for the network; empty when the network decides."""
        if not content:
            return b"empty"
        if len(content) >= self.fewest and len(content[: self.block].lstrip()) >= self.fewest:
            return b""
        try:
            content[: self.block].decode("utf-8")
        except UnicodeDecodeError:
            return b"unknown"
        return b"txt"

    def fill(self, tokens, content):
        head = content[: self.block].lstrip()[: self.begin]
        tail = content[-self.block :].rstrip()[-self.end :]
        tokens[: len(head)] = np.frombuffer(head, dtype=np.uint8)
        if tail:
            tokens[len(tokens) - len(tail) :] = np.frombuffer(tail, dtype=np.uint8)
