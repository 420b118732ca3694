"""Classification: one class per image, read linearly from an encoder's pooled features, which are trained with it.

Label smoothing after Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016,
https://arxiv.org/abs/1512.00567, section 7; dropout after Srivastava et al., JMLR 15, 2014.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.augment import Generators, generators, uniform
from medssl.errors import InputError
from medssl.method import Method
from medssl.networks.encoder import Encoder
from medssl.networks.heads import accuracy, pooled
from medssl.networks.segmentation import check_image
from medssl.sample import Batch, require
from medssl.views import Views

_OTHER_DRAWS = 1 << 40  # so that a sample's dropout is not drawn from the numbers that placed its view


class Classification(Method):
    """Minimise the weighted cross-entropy of the class of one view of each image.

    Images without a class (category -1) are left out; a batch that holds no other has the loss 0.

    Args:
        encoder: The network to fine-tune, for 2D or 3D images.
        classes: Names of the classes, in order of index.
        images_per_class: (classes,), how many training images each has: a class's images weigh by the inverse of its
            frequency, so that every class has the same say. None weighs all images by 1.
        weight_cap: Largest weight; that of a class of average frequency is 1.
        label_smoothing: Share of the target that all classes have alike, 0 to below 1; the paper's 0.1 is for a
            thousand classes.
        dropout: Probability of leaving out a pooled feature in training, 0 to below 1.
        views: How an image varies. Where left and right differ between the classes, set its ``mirroring`` to 0.

    Raises:
        InputError: A share is out of range, there are fewer than 2 classes, or as many counts are not given.
    """

    class_weight: Tensor

    def __init__(
        self,
        encoder: Encoder,
        classes: Sequence[str],
        images_per_class: Sequence[int] | None = None,
        weight_cap: float = 10.0,
        label_smoothing: float = 0.0,
        dropout: float = 0.0,
        views: Views = Views(),
    ) -> None:
        super().__init__()
        for name, share in (("label_smoothing", label_smoothing), ("dropout", dropout)):
            if not 0 <= share < 1:
                raise InputError(f"Classification: {name} is a share within 0 to below 1, got {share}.")
        if len(classes) < 2:
            raise InputError(
                f"Classification tells classes apart: give two or more, got {', '.join(classes) or 'none'}."
            )
        self.encoder, self.classes, self.views = encoder, tuple(classes), views
        self.label_smoothing, self.dropout = label_smoothing, dropout
        self.head = nn.Linear(encoder.channels[-1], len(classes))
        counts = torch.ones(len(classes)) if images_per_class is None else torch.as_tensor(images_per_class)
        if len(counts) != len(classes):
            raise InputError(f"{len(classes)} classes need as many counts of images, got {len(counts)}.")
        self.register_buffer("class_weight", inverse_frequency_weights(counts, weight_cap))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy, and the share that is right, of the images with a class; needs image, category and seed."""
        require(batch, "image", "category", "seed")
        view = self.views(batch["image"], batch["seed"], count=1)[:, 0]  # (B, C, *size)
        check_image(view, self.encoder)
        z = pooled(self.encoder(view))  # (B, channels)
        if self.training and self.dropout:
            z = drop(z, self.dropout, generators(batch["seed"] ^ _OTHER_DRAWS))
        known = batch["category"] >= 0
        logits, target = self.head(z)[known], batch["category"][known]
        entropy = F.cross_entropy(logits, target, reduction="none", label_smoothing=self.label_smoothing)
        # Over the number of images, not over their weights: in a batch of one those would cancel.
        loss = (self.class_weight[target] * entropy).sum() / max(len(target), 1)
        return {"loss": loss, "accuracy": accuracy(logits, target).nan_to_num(0)}

    def probabilities(self, z: Tensor) -> Tensor:
        """Turn pooled features (N, channels), such as the average over an image's windows, into (N, classes)."""
        logits: Tensor = self.head(z)
        return logits.float().softmax(1)


def inverse_frequency_weights(images: Tensor, cap: float = 10.0) -> Tensor:
    """Weigh each of K classes that have images by ``N / (K n_c)``, at most ``cap``; an empty one by 1.

    Without the cap the weights of all images add up to their number N.

    Args:
        images: (classes,), how many each class has.
        cap: Largest weight.
    """
    n = images.double()
    present = n > 0
    weight = torch.ones_like(n)
    weight[present] = (n.sum() / (present.sum() * n[present])).clamp(max=cap)
    return weight.float()


def drop(z: Tensor, probability: float, draw: Generators) -> Tensor:
    """Set entries of (B, D) to 0, each row's drawn by its own generator, and scale up those that stay."""
    kept = uniform(0, 1, z.shape[1:], draw, z) >= probability
    return z * kept / (1 - probability)
