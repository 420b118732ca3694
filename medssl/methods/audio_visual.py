"""Audio-visual correspondence: is this the sound of this picture? Who can tell knows what sounds how, and where it is.

Arandjelović & Zisserman, "Look, Listen and Learn", ICCV 2017, https://arxiv.org/abs/1705.08168 (L3-Net), and "Objects
that Sound", ECCV 2018, https://arxiv.org/abs/1712.06651 (AVE-Net, section 3; AVOL-Net, section 4).
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from medssl.augment import generators, uniform
from medssl.clip_augment import ClipAugment
from medssl.data.clips import ClipNeeds, Single, Sound
from medssl.errors import InputError
from medssl.geometry import in_float32
from medssl.networks.audio import SoundEncoder
from medssl.networks.dense_embedding import DenseEmbedding
from medssl.networks.encoder import Encoder
from medssl.sample import Batch, require
from medssl.spectrogram import frequencies, log_spectrogram
from medssl.video_method import VideoMethod

HeadName = Literal["l3", "ave", "avol"]

_SMALLEST = 1e-6  # squared distance whose root still has a gradient
_HOT = (1.0, 0.85, 0.0)  # colour of the places that sound


class AudioVisual(VideoMethod):
    """Tell pictures with their own sound from pictures with another clip's, by the logistic loss.

    All heads stand on the same towers and on two embeddings of ``width``, of what is seen and of what is heard; the
    papers give each its own numbers of layers:

    - ``l3`` adds the two, which is a layer on their concatenation, and classifies the sum;
    - ``ave`` classifies their distance alone, so that what belongs together comes to lie together;
    - ``avol`` compares the sound with each cell of the picture and asks the best one: where the sound comes from.

    What ``l3`` and ``ave`` learn of whole pictures they can be asked of each cell, too; only ``avol`` was taught it.

    An encoder of sound leaves traces that repeat with the frames' times. A negative sound that began anywhere, where
    true ones begin with a frame, would be told by its phase alone, with nothing seen: hence ``grid``.

    Args:
        encoder: The network of pictures to train.
        head: How sight and sound are compared.
        width: Of the embeddings.
        stride: Side of a cell, pixels; 14 x 14 cells of the paper's 224 x 224 pixels.
        sound_channels: Of the network of sound, see ``SoundEncoder``.
        rate: Samples per second that sound is brought to.
        seconds: Of sound that is heard with a picture.
        window_s: Of the spectrogram.
        jitter_s: By how much a picture lies beside the middle of its sound, at most.
        grid: Begin negative sounds, as positive ones, at the time of a frame.
        volume: Largest change of the loudness, as a share.
        augment: How pictures vary.
    """

    def __init__(
        self,
        encoder: Encoder,
        head: HeadName = "avol",
        width: int = 128,
        stride: int = 16,
        sound_channels: Sequence[int] = (64, 128, 256, 512),
        rate: int = 48_000,
        seconds: float = 1.0,
        window_s: float = 0.01,
        jitter_s: float = 1.0,
        grid: bool = True,
        volume: float = 0.1,
        augment: ClipAugment = ClipAugment(),
    ) -> None:
        super().__init__()
        if head not in get_args(HeadName):
            raise InputError(f"AudioVisual: head is one of {', '.join(get_args(HeadName))}, got {head!r}.")
        if not 0 <= volume < 1 or not 0 < 2 * window_s <= seconds:
            raise InputError(
                "AudioVisual: volume is a share below 1, and seconds at least two windows of the spectrogram; got "
                f"volume {volume:g}, seconds {seconds:g} and window_s {window_s:g}."
            )
        self.encoder, self.name, self.volume, self.augment = encoder, head, volume, augment
        self.sound = Sound(rate, seconds, jitter_s, grid)
        self.needs = ClipNeeds(Single(), intrinsics=False, sound=self.sound)
        self.samples, self.window = round(rate * seconds), 2 * round(rate * window_s / 2)
        self.sight = DenseEmbedding(encoder, width, stride)
        self.hearing = SoundEncoder(frequencies(self.window), sound_channels)
        self.of_sight, self.of_hearing = Embedding(width, width), Embedding(self.hearing.width, width)
        self.head = HEADS[head](width)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Logistic loss of true and false pairs of clips; needs clip, sound, other_sound, index and seed.

        ``accuracy`` is 0.5 by chance, the mean of ``accepted``, the share of true pairs that are taken for true, and
        ``rejected``, that of the false ones which are not.
        """
        require(batch, "clip", "sound", "other_sound", "index", "seed")
        draw = generators(batch["seed"] + 2)  # beside what mirrors and what colours
        sounds = torch.stack([batch["sound"], batch["other_sound"]], 1)  # (B, 2, N)
        if self.training:
            batch = self.augment.mirror(batch)
            batch = batch | {"clip": self.augment.recolour(batch["clip"], batch["seed"])}
            sounds = sounds * uniform(1 - self.volume, 1 + self.volume, (2, 1), draw, sounds)
        heard = self.hear(sounds.flatten(0, 1)).unflatten(0, sounds.shape[:2])  # (B, 2, D)
        places = self._compared(self.see(batch["clip"][:, 0]))  # (B, n, D)
        true = self.head(places, heard[:, 0]).amax(1)
        false = self.head(places, heard[partners(batch["index"], draw), 1]).amax(1)
        accepted, rejected = (true > 0).float().mean(), (false <= 0).float().mean()
        return {
            "loss": (F.softplus(-true).mean() + F.softplus(false).mean()) / 2,
            "accuracy": (accepted + rejected) / 2,
            "accepted": accepted,
            "rejected": rejected,
        }

    def see(self, image: Tensor) -> Tensor:
        """What is seen in each cell of pictures (B, 3, H, W), 0 to 1: (B, D, H / stride, W / stride)."""
        return F.relu(self.sight(image))

    def hear(self, sound: Tensor) -> Tensor:
        """Embed sounds (B, N), -1 to 1, (B, D).

        Raises:
            InputError: They are of another length than the method learns from.
        """
        if sound.ndim != 2 or sound.shape[1] != self.samples:
            raise InputError(
                f"AudioVisual hears sounds (B, {self.samples}), which are {self.sound.seconds:g} s at "
                f"{self.sound.rate} Hz, got {tuple(sound.shape)}. Resample the sound, and give so much of it."
            )
        embedded: Tensor = self.of_hearing(self.hearing(log_spectrogram(sound, self.window)))
        return embedded

    def odds(self, seen: Tensor, heard: Tensor) -> Tensor:
        """Log-odds (B,) that what is seen and what is heard (B, D) are of one moment; above 0 is for it."""
        best: Tensor = self.head(self._compared(seen), heard).amax(1)
        return best

    def heat(self, seen: Tensor, heard: Tensor) -> Tensor:
        """Say where what is heard (B, D) comes from in what is seen (B, D, h, w): (B, 1, h, w), 0 to 1."""
        odds: Tensor = self.head(self._cells(seen), heard)
        found: Tensor = odds.sigmoid().unflatten(1, seen.shape[-2:]).unsqueeze(1)
        return found

    def embed_image(self, image: Tensor) -> Tensor:
        """Unit vectors (B, D), float32, of pictures (B, 3, H, W), 0 to 1; near those of their sounds."""
        return self.embed_seen(self.see(image))

    def embed_seen(self, seen: Tensor) -> Tensor:
        """Unit vectors (B, D), float32, of what is seen: of ``avol`` the mean over the cells."""
        return F.normalize(self._compared(seen).float().mean(1), dim=1)

    def embed_sound(self, sound: Tensor) -> Tensor:
        """Unit vectors (B, D), float32, of sounds (B, N), -1 to 1."""
        return F.normalize(self.hear(sound).float(), dim=1)

    @torch.no_grad()
    def show(self, batch: Batch) -> dict[str, Tensor]:
        """Give the picture, where its sound and another clip's are taken to come from, and the sound's spectrogram."""
        image, seen = batch["clip"][:, 0], self.see(batch["clip"][:, 0])
        heard, other = self.hear(batch["sound"]), self.hear(batch["other_sound"]).roll(1, 0)
        return {
            "input": image,
            "its sound": heated(image, self.heat(seen, heard)),
            "another clip's sound": heated(image, self.heat(seen, other)),
            "spectrogram": log_spectrogram(batch["sound"], self.window).flip(2),  # low frequencies below
        }

    def _cells(self, seen: Tensor) -> Tensor:
        """Embed each cell, (B, h w, D)."""
        embedded: Tensor = self.of_sight(seen.flatten(2).transpose(1, 2))
        return embedded

    def _compared(self, seen: Tensor) -> Tensor:
        """Embed what the head was taught to compare, (B, n, D): each cell, or the picture as a whole."""
        return self._cells(seen if self.name == "avol" else seen.amax((2, 3), keepdim=True))


class Embedding(nn.Module):
    """A linear layer, and each number brought to mean 0 and variance 1 over what the batch shows.

    At first all pictures look nearly alike to a network, and all sounds; without what they have in common the
    comparison begins with what tells them apart, which takes a tenth of the steps.
    """

    def __init__(self, in_features: int, width: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(in_features, width, bias=False), nn.BatchNorm1d(width, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """Turn (..., in_features) into (..., width)."""
        embedded = self.linear(x)
        standard: Tensor = self.norm(embedded.flatten(0, -2)).view_as(embedded)
        return standard


class Concatenation(nn.Module):
    """L3-Net's comparison: embeddings added, which is a linear layer on their concatenation, ReLU, two classes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.classes = nn.Linear(width, 2)

    @in_float32
    def forward(self, seen: Tensor, heard: Tensor) -> Tensor:
        """Log-odds (B, n) that what is seen at n places (B, n, D) belongs to what is heard (B, D)."""
        return log_odds(self.classes(F.relu(seen + heard.unsqueeze(1))))


class Distance(nn.Module):
    """AVE-Net's comparison: the Euclidean distance of the embeddings, made unit vectors, and of it two classes.

    Vectors at random are the root of 2 apart; there the odds begin even, and fall with the distance.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.classes = nn.Linear(1, 2)
        with torch.no_grad():
            slope = torch.tensor([0.5, -0.5]) * width**0.5
            self.classes.weight.copy_(slope.unsqueeze(1))
            self.classes.bias.copy_(-slope * 2**0.5)

    @in_float32
    def forward(self, seen: Tensor, heard: Tensor) -> Tensor:
        """Log-odds (B, n) that what is seen at n places (B, n, D) belongs to what is heard (B, D)."""
        distance = euclidean(F.normalize(seen, dim=2), F.normalize(heard, dim=1).unsqueeze(1))
        return log_odds(self.classes(distance.unsqueeze(2)))


class ScalarProduct(nn.Module):
    """AVOL-Net's comparison: the scalar product of the embeddings, with one scale and one bias.

    Of embeddings that know nothing the scaled products are as normal numbers, of which the largest of some hundred is
    about 2.5; there the odds begin about even.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.tensor(width**-0.5)), nn.Parameter(torch.tensor(-2.5))

    @in_float32
    def forward(self, seen: Tensor, heard: Tensor) -> Tensor:
        """Log-odds (B, n) that what is seen at n places (B, n, D) belongs to what is heard (B, D)."""
        return self.scale * (seen @ heard.unsqueeze(2)).squeeze(2) + self.bias


HEADS: dict[str, type[nn.Module]] = {"l3": Concatenation, "ave": Distance, "avol": ScalarProduct}


def log_odds(classes: Tensor) -> Tensor:
    """Of two classes (..., 2), no and yes: their soft-max cross-entropy is the logistic loss of it."""
    return classes[..., 1] - classes[..., 0]


def euclidean(a: Tensor, b: Tensor) -> Tensor:
    """Distance of unit vectors (..., D), (...)."""
    return (2 - 2 * (a * b).sum(-1)).clamp_min(_SMALLEST).sqrt()


def partners(recordings: Tensor, draw: Sequence[Generator]) -> Tensor:
    """Draw for each clip another one whose sound is a false partner: of another recording where the batch has one.

    Args:
        recordings: Which recording each clip is of, (B,).
        draw: A generator per clip.

    Returns:
        Numbers of clips in the batch, (B,).

    Raises:
        InputError: There is no other clip.
    """
    count = len(recordings)
    if count < 2:
        raise InputError("AudioVisual takes false sounds from other clips: a batch needs at least 2, got 1.")
    foreign = recordings.unsqueeze(1) != recordings
    others = ~torch.eye(count, dtype=torch.bool, device=recordings.device)
    allowed = torch.where(foreign.any(1, keepdim=True), foreign, others)
    return uniform(0, 1, (count,), draw, recordings).masked_fill(~allowed, -1).argmax(1)


def heated(image: Tensor, heat: Tensor) -> Tensor:
    """Draw heat (B, 1, h, w), 0 to 1, over pictures (B, 3, H, W): grey where there is none, glowing where it is 1."""
    strength = F.interpolate(heat.float(), image.shape[-2:], mode="bilinear", align_corners=False).clamp(0, 1)
    grey = image.mean(1, keepdim=True).expand_as(image)
    glow = torch.tensor(_HOT, device=image.device).view(1, 3, 1, 1) * (0.35 + 0.65 * grey)
    return torch.lerp(grey, glow, strength)
