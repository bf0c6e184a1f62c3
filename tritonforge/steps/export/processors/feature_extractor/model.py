"""Sound (mono samples at the rate that `processor.json` names) in, what a network reads out, in NumPy alone.

`log-mel`: Whisper's spectrogram (Radford et al., 2022): cut or filled up with silence to a fixed length, a Hann window,
the power of a short-time Fourier transform, mel filters, log10 within 8 of its largest value. `normalize`: zero mean
and unit variance, as Wav2Vec2 and its kind read waveforms.
"""

import json
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        folder = Path(args["model_repository"]) / args["model_version"]
        self.settings = json.loads((folder / "processor.json").read_text(encoding="utf-8"))
        if self.settings["kind"] == "log-mel":
            self.filters = np.load(folder / "mel_filters.npy", allow_pickle=False)
            size = self.settings["n_fft"]
            self.window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        sounds = pb_utils.get_input_tensor_by_name(request, "AUDIO").as_numpy()
        if sounds.shape[-1] == 0:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("AUDIO has no samples"))
        make = self.log_mel if self.settings["kind"] == "log-mel" else self.normalized
        found = np.stack([make(sound) for sound in sounds.reshape(-1, sounds.shape[-1])])
        return pb_utils.InferenceResponse([pb_utils.Tensor(self.settings["output"], found)])

    def normalized(self, sound):
        if not self.settings["normalize"]:
            return sound.astype(np.float32)
        return ((sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)).astype(np.float32)

    def log_mel(self, sound):
        settings = self.settings
        samples, size, hop = settings["samples"], settings["n_fft"], settings["hop_length"]
        whole = np.full(samples, settings["padding_value"], dtype=np.float64)
        whole[: min(samples, len(sound))] = sound[:samples]
        framed = np.lib.stride_tricks.sliding_window_view(np.pad(whole, size // 2, mode="reflect"), size)[::hop]
        power = np.abs(np.fft.rfft(framed[: samples // hop] * self.window, axis=-1)) ** 2
        mel = np.log10(np.maximum(self.filters.T @ power.T, 1e-10))
        mel = np.maximum(mel, mel.max() - 8.0)
        return ((mel + 4.0) / 4.0).astype(np.float32)
