"""Sound as a picture: how loud each frequency is from moment to moment."""

import torch
from torch import Tensor
from torch.nn import functional as F

from medssl.errors import InputError
from medssl.geometry import in_float32

RANGE_DB = 80.0
"""From the loudest that a file can hold down to what counts as silence; 16 bits reach 96 dB."""


def frequencies(window: int) -> int:
    """How many frequencies ``log_spectrogram`` tells apart with windows of so many samples, the lowest being 0."""
    return _transform(window) // 2 + 1


@in_float32
def log_spectrogram(sound: Tensor, window: int = 480) -> Tensor:
    """Turn sound into loudness by frequency and time, as Arandjelović & Zisserman 2017 do, section 3.1.

    Hann windows overlap by half, and each is in the middle of its step; one second at 48 kHz in windows of 10 ms gives
    257 frequencies at 200 times. Around the sound it is mirrored.

    Args:
        sound: (B, N), -1 to 1; what is left over after the last whole step is not looked at.
        window: Samples, an even number.

    Returns:
        (B, 1, F, 2 N / window), float32, the lowest frequency first; 1 is a sine that fills a file's range, 0 is 80 dB
        below it, or less.

    Raises:
        InputError: The sound is shorter than two windows, or a window has an odd number of samples.
    """
    step, size = window // 2, _transform(window)
    if window % 2 or sound.ndim != 2 or sound.shape[1] < 2 * window:
        raise InputError(
            "A spectrogram is made of sound (B, N) of at least 2 windows, each of an even number of samples; got "
            f"{tuple(sound.shape)} and windows of {window}."
        )
    whole = sound[:, : sound.shape[1] // step * step]
    edge = (size - step) // 2, (size - step + 1) // 2
    around = F.pad(whole.unsqueeze(1), edge, mode="reflect").squeeze(1)
    hann = torch.hann_window(window, device=sound.device, dtype=sound.dtype)
    spectrum = torch.stft(around, size, step, window, hann, center=False, return_complex=True)
    amplitude = 2 * spectrum.abs() / hann.sum()
    decibel = 20 * amplitude.clamp_min(10 ** (-RANGE_DB / 20)).log10()
    return (1 + decibel / RANGE_DB).unsqueeze(1)


def _transform(window: int) -> int:
    """Samples of the Fourier transform: the power of two from a window on."""
    return 1 << (window - 1).bit_length()
