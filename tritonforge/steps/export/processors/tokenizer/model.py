"""Texts in, token ids out: `tokenizer.json` with the `tokenizers` library, cut and padded as `processor.json` says.

All texts of a batch are encoded at once, but each request is padded to its own longest text: what a request gets does
not depend on its neighbours.
"""

import json
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils
from tokenizers import Tokenizer


class TritonPythonModel:
    def initialize(self, args):
        folder = Path(args["model_repository"]) / args["model_version"]
        self.settings = json.loads((folder / "processor.json").read_text(encoding="utf-8"))
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(self.settings["max_length"], direction=self.settings["truncation_side"])

    def execute(self, requests):
        texts, spans = [], []
        for request in requests:
            asked = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy()
            try:
                own = [text.decode("utf-8") for text in asked.reshape(-1)]
            except UnicodeDecodeError as error:
                spans.append((None, f"TEXT is not UTF-8: {error}"))
                continue
            spans.append((slice(len(texts), len(texts) + len(own)), asked.shape))
            texts += own
        encodings = self.tokenizer.encode_batch_fast(texts)
        return [
            failed(shape) if span is None else self.answer(encodings[span], shape)  # for a failed one, its message
            for span, shape in spans
        ]

    def answer(self, encodings, shape):
        settings = self.settings
        longest = max((len(encoding.ids) for encoding in encodings), default=0)
        width = settings["max_length"] if settings["padding"] == "max_length" else longest
        if width == 0:
            return failed("TEXT has no tokens")
        fill = {"input_ids": settings["pad_id"], "attention_mask": 0, "token_type_ids": settings["pad_type_id"]}
        rows = {name: np.full((len(encodings), width), fill[name], dtype=np.int64) for name in settings["outputs"]}
        for row, encoding in enumerate(encodings):
            count = len(encoding.ids)
            place = slice(width - count, width) if settings["padding_side"] == "left" else slice(0, count)
            for name, values in rows.items():
                if name == "input_ids":
                    values[row, place] = encoding.ids
                elif name == "attention_mask":
                    values[row, place] = 1
                else:
                    values[row, place] = encoding.type_ids
        whole = (*shape, width) if settings["several"] else (len(encodings), width)
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, v.reshape(whole)) for name, v in rows.items()])


def failed(message):
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message))
