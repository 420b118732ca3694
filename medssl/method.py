"""The one abstraction: a method turns a batch into a loss, and knows nothing of devices, precision or loggers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence

from torch import Generator, Tensor, nn

from medssl.networks.encoder import Encoder
from medssl.sample import Batch, Sample

Pretext = Callable[[Sample, Generator], Sample]


def as_read(sample: Sample, generator: Generator) -> Sample:
    """Leave a sample as the reader delivered it."""
    return sample


class Method(nn.Module, ABC):
    """A way of learning, as a plain module: a five-line loop can train it.

    Everything that a method must remember to resume (class weights, queues, centroids) is in its ``state_dict``.

    Attributes:
        encoder: The network that is kept afterwards.
        pretext: Turns one sample into what the loss needs; runs in the loader's workers with the sample's own
            generator. Picklable, holds no network.
        spatial_dims: The numbers of dimensions the method works in.
    """

    encoder: Encoder
    pretext: Pretext = staticmethod(as_read)
    spatial_dims: tuple[int, ...] = (2, 3)

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return named scalars; ``"loss"`` is optimised and every entry is logged."""

    def after_step(self) -> None:
        """React to an optimiser step (a momentum encoder, a queue)."""
        return

    def start_epoch(self, batches: Iterable[Batch]) -> None:
        """React to the start of an epoch (cluster assignments).

        Args:
            batches: This process's batches of the coming epoch, as they will be trained on, on the method's device;
                nothing is read before they are iterated over.
        """
        return

    def after_validation(self, scores: Mapping[str, float]) -> None:
        """React to validation scores (the class weights of error-corrective boosting)."""
        return

    def check(self, images: int, channels: int, patch_size: Sequence[int]) -> None:
        """Refuse data that the task cannot be learnt from, before anything is read.

        Args:
            images: How many images there are.
            channels: Of each image.
            patch_size: Of the crops that ``loss`` will get, voxels.

        Raises:
            InputError: The data do not fit the task; the message says why, and what would.
        """
        return

    def show(self, batch: Batch) -> dict[str, Tensor]:
        """Give pictures of the task for a person to look at, by name: (B, C, *spatial) each (input, target, ...)."""
        return {"image": batch["image"]}

    def clusters(self) -> tuple[Tensor, int] | None:
        """Give each sample's cluster (N,), and how many clusters there are; None where nothing is clustered."""
        return None

    def state_scores(self) -> dict[str, float]:
        """Say what of the method's own state is logged after each validation (class weights, a queue's age)."""
        return {}
