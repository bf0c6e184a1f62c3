"""From the bytes of a picture to EfficientNet-Lite0's input: resized, cropped in the middle, values from -1 to 1."""

import io

import numpy as np
import triton_python_backend_utils as pb_utils
from PIL import Image

SIZE = 224
LARGER = 256
LARGEST_PIXELS = 64_000_000


class TritonPythonModel:
    def initialize(self, args):
        Image.MAX_IMAGE_PIXELS = LARGEST_PIXELS

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        pictures = pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy().reshape(-1)
        pixels = np.empty((len(pictures), 3, SIZE, SIZE), dtype=np.float32)
        for row, data in enumerate(pictures):
            try:
                pixels[row] = prepared(data)
            except Exception as error:
                return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"picture {row}: {error}"))
        return pb_utils.InferenceResponse([pb_utils.Tensor("pixels", pixels)])


def prepared(data):
    """[3, 224, 224] of one picture: the shorter side becomes 256, the middle is kept, (x - 127) / 128."""
    with Image.open(io.BytesIO(data)) as opened:
        picture = opened.convert("RGB")
    scale = LARGER / min(picture.size)
    picture = picture.resize([round(side * scale) for side in picture.size], Image.Resampling.BICUBIC)
    left, top = ((side - SIZE) // 2 for side in picture.size)
    array = np.asarray(picture.crop((left, top, left + SIZE, top + SIZE)), dtype=np.float32)
    return (array.transpose(2, 0, 1) - 127.0) / 128.0
