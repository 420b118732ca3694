"""Methods that learn from clips of recordings, and what can be asked of them once they have learnt."""

from abc import abstractmethod

from torch import Tensor

from medssl.data.clips import ClipNeeds
from medssl.method import Method
from medssl.sample import Batch


class VideoMethod(Method):
    """A method that learns from clips; its encoder is of single pictures (or of two, beside each other).

    Attributes:
        needs: Which frames make a clip, and what it holds beside pictures.
    """

    spatial_dims = (2,)
    needs: ClipNeeds


class DepthMethod(VideoMethod):
    """A method that tells depth from a picture.

    Attributes:
        metric: Whether depth is in the recording's own unit; otherwise it is up to one factor per recording.
    """

    metric: bool = False

    @abstractmethod
    def depth(self, batch: Batch) -> Tensor:
        """Depth (B, 1, H, W), float32, above 0, of the first frame of each clip."""

    def motion(self, a: Tensor, b: Tensor) -> Tensor | None:
        """What takes points from the camera of pictures a to that of b, (B, 4, 4), in the unit of the depth.

        ``None`` from methods that learn no motion.
        """
        return None


class FlowMethod(VideoMethod):
    """A method that tells how far each pixel moves from one picture to another."""

    @abstractmethod
    def flow(self, a: Tensor, b: Tensor) -> Tensor:
        """Flow (B, 2, H, W), float32, x and y in pixels, from pictures a to b, (B, 3, H, W) each, 0 to 1."""


class CorrespondenceMethod(VideoMethod):
    """A method that finds the things of one picture in another: cells that show the same have like embeddings.

    Attributes:
        stride: Side of an embedding's cell, pixels.
        temperature: At which similarities of embeddings become shares.
    """

    stride: int
    temperature: float

    @abstractmethod
    def embed(self, image: Tensor) -> Tensor:
        """Unit vectors (B, D, H / stride, W / stride), float32, of pictures (B, 3, H, W), 0 to 1.

        Raises:
            InputError: The sides are no multiples of the encoder's strides and of ``stride``.
        """
