"""Writes ``vowels.npz``: two synthetic voices that sing vowels, as 16 requests each of 512 samples at 16 kHz.

A train of glottal pulses goes through three resonances (the formants of five vowels). No human voice is in it, and
silero-vad is unsure about it, which is what a test of its numbers wants: probabilities from 0.03 to 0.9.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

RATE, CHUNK, REQUESTS = 16000, 512, 16
FORMANTS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (660, 1720, 2410))
BANDWIDTHS = (80, 100, 140)


def voice(seconds: float, seed: int) -> np.ndarray:
    """A voice at 95 to 140 Hz, float32 in [-0.4, 0.4]."""
    rng = np.random.default_rng(seed)
    parts, length = [], 0
    while length < seconds * RATE:
        parts.append(_vowel(rng))
        parts.append(np.zeros(int(RATE * rng.uniform(0, 0.06))))
        length += len(parts[-1]) + len(parts[-2])
    return np.concatenate(parts)[: int(seconds * RATE)].astype(np.float32)


def chunks(signal: np.ndarray) -> np.ndarray:
    """``[requests, 512]``; what is left over at the end is dropped."""
    return signal[: len(signal) // CHUNK * CHUNK].reshape(-1, CHUNK)


def _vowel(rng: np.random.Generator) -> np.ndarray:
    formants = FORMANTS[rng.integers(len(FORMANTS))]
    length = int(RATE * rng.uniform(0.12, 0.3))
    at = np.arange(length)
    pitch = rng.uniform(95, 140) * (1 + 0.05 * np.sin(2 * np.pi * 3 * at / RATE) - 0.1 * at / length)
    signal = np.diff(np.floor(np.cumsum(pitch) / RATE), prepend=0) + 0.01 * rng.standard_normal(length)
    for centre, bandwidth in zip(formants, BANDWIDTHS, strict=True):
        radius = np.exp(-np.pi * bandwidth / RATE)
        signal = _resonance(signal, 2 * radius * np.cos(2 * np.pi * centre / RATE), -(radius**2))
        signal /= np.abs(signal).max()
    return 0.4 * signal * np.minimum(1, np.minimum(at, length - at) / (0.02 * RATE))


def _resonance(signal: np.ndarray, first: float, second: float) -> np.ndarray:
    out = np.zeros(len(signal) + 2)
    for index, value in enumerate(signal):
        out[index + 2] = value + first * out[index + 1] + second * out[index]
    return out[2:]


if __name__ == "__main__":
    voices = [chunks(voice(2.0, seed))[18 : 18 + REQUESTS] for seed in (0, 1)]
    np.savez_compressed(Path(__file__).with_name("vowels.npz"), input=np.stack(voices, axis=1))
