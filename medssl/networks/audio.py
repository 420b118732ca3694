"""What is heard, as a vector: pairs of 3x3 convolutions over a spectrogram, half the size after each pair.

Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015,
https://arxiv.org/abs/1409.1556, as Arandjelović & Zisserman, "Objects that Sound", ECCV 2018,
https://arxiv.org/abs/1712.06651, figure 2, use it.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from medssl.networks.segmentation import initialise
from medssl.networks.unet import Norm, convolution


class SoundEncoder(nn.Module):
    """Turn spectrograms into vectors: what is heard at each height of pitch, whenever it is heard.

    The paper takes the maximum over the frequencies, too. A convolution sees the same shape at every pitch, so of a
    pure tone this would not even tell whether it is high or low.

    Args:
        frequencies: Of the spectrogram.
        channels: Of each pair of convolutions; the paper's are the defaults.
        norm: Normalisation after each convolution. By group or by instance it would take away how loud a sound is.

    Attributes:
        width: Of the vectors.
    """

    def __init__(self, frequencies: int, channels: Sequence[int] = (64, 128, 256, 512), norm: Norm = "batch") -> None:
        super().__init__()
        self.pairs = nn.ModuleList()
        for level, (before, after) in enumerate(pairwise((1, *channels))):
            first = convolution(2, before, after, norm, stride=1 if level else 2)
            self.pairs.append(nn.Sequential(first, convolution(2, after, after, norm)))
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.width = channels[-1] * -(-frequencies // 2 ** len(channels))
        initialise(self)

    def forward(self, spectrogram: Tensor) -> Tensor:
        """Turn (B, 1, F, T), 0 to 1, into (B, width)."""
        x = spectrogram
        for level, pair in enumerate(self.pairs):
            x = pair(self.pool(x) if level else x)
        return x.amax(3).flatten(1)
