"""Pictures (the bytes of JPEG, PNG or WebP files) in, pixels out, as `processor.json` says, with Pillow and NumPy.

Each picture is turned upright by its EXIF orientation and made RGB, as transformers' `load_image` does; resized,
cropped, rescaled and normalised as its image processors on Pillow do.
"""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "WEBP")


class TritonPythonModel:
    def initialize(self, args):
        folder = Path(args["model_repository"]) / args["model_version"]
        self.settings = json.loads((folder / "processor.json").read_text(encoding="utf-8"))

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        files = pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy().reshape(-1)
        try:
            pixels = np.stack([self.pixels(data) for data in files])
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"IMAGE cannot be read: {error}"))
        return pb_utils.InferenceResponse([pb_utils.Tensor("pixel_values", pixels)])

    def pixels(self, data):
        settings = self.settings
        picture = Image.open(BytesIO(data), formats=FORMATS)
        if picture.width * picture.height > settings["max_pixels"]:  # told by the header, before anything is decoded
            raise ValueError(f"{picture.width} x {picture.height} pixels are more than {settings['max_pixels']}")
        picture = ImageOps.exif_transpose(picture).convert("RGB")
        if settings["resize"]:
            width, height = resized(picture.width, picture.height, settings["resize"])
            picture = picture.resize((width, height), resample=settings["resample"])
        values = np.asarray(picture).transpose(2, 0, 1)
        if settings["crop"]:
            values = cropped(values, *settings["crop"])
        if settings["rescale"] is not None:
            values = (values.astype(np.float64) * settings["rescale"]).astype(np.float32)
        values = values.astype(np.float32)
        if settings["mean"] is not None:
            mean, std = (np.array(settings[name], dtype=np.float32)[:, None, None] for name in ("mean", "std"))
            values = (values - mean) / std
        return np.ascontiguousarray(values)


def resized(width, height, how):
    """Width and height that a picture gets: given ones, or by its shorter side."""
    if "height" in how:
        return how["width"], how["height"]
    wanted = how["shortest_edge"]
    short, long = min(width, height), max(width, height)
    longer = int(wanted * long / short)
    return (wanted, longer) if width <= height else (longer, wanted)


def cropped(values, height, width):
    """The middle of a picture, with zeros around one that is too small."""
    tall, wide = values.shape[-2:]
    top, left = (tall - height) // 2, (wide - width) // 2
    if top < 0 or left < 0:
        whole = (max(height, tall), max(width, wide))
        above, before = (whole[0] - tall + 1) // 2, (whole[1] - wide + 1) // 2
        padded = np.zeros((values.shape[0], *whole), dtype=values.dtype)
        padded[:, above : above + tall, before : before + wide] = values
        values, top, left = padded, top + above, left + before
    return values[:, top : top + height, left : left + width]
