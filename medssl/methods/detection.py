"""Detection: a box around each structure, from anchors on a feature pyramid; boxes to learn from come from label maps.

RetinaNet: Lin, Goyal, Girshick, He, Dollár, "Focal Loss for Dense Object Detection", ICCV 2017,
https://arxiv.org/abs/1708.02002, on the pyramid of Lin et al., "Feature Pyramid Networks", CVPR 2017,
https://arxiv.org/abs/1612.03144. Anchors are matched, one per place, as Zhang et al., "Bridging the Gap Between
Anchor-based and Anchor-free Detection via Adaptive Training Sample Selection", CVPR 2020,
https://arxiv.org/abs/1912.02424. Network, matcher and losses are MONAI's.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from monai.apps.detection.networks.retinanet_detector import RetinaNetDetector
from monai.apps.detection.networks.retinanet_network import RetinaNet
from monai.apps.detection.utils.anchor_utils import AnchorGeneratorWithAnchorShape
from monai.apps.detection.utils.detector_utils import pad_images
from monai.losses import FocalLoss
from monai.networks.blocks.feature_pyramid_network import FeaturePyramidNetwork
from torch import Tensor, nn

from medssl.augment import Augmentation
from medssl.errors import InputError
from medssl.method import Method
from medssl.networks.encoder import Encoder
from medssl.networks.segmentation import check_image
from medssl.sample import Batch, require

_GROUPS = 8  # of the group normalisation in MONAI's heads
# Where the box loss turns from square to linear, as in Detectron and torchvision. Not 1 - GIoU as in ATSS: it is flat
# where a box has shrunk to nothing, and large early steps of Muon shrink all of them, for good.
_BETA = 1 / 9


class Boxes(NamedTuple):
    """Boxes in an image.

    Attributes:
        corners: (N, 2 dims), the lower corner and then the upper one, in voxels: a box from 2 to 5 holds the voxels 2,
            3 and 4.
        classes: (N,), as in label maps: 1 is the first structure.
    """

    corners: Tensor
    classes: Tensor


class Detections(NamedTuple):
    """Boxes that were found, the surest first; see ``Boxes``.

    Attributes:
        corners: (N, 2 dims).
        scores: (N,), 0..1.
        classes: (N,).
    """

    corners: Tensor
    scores: Tensor
    classes: Tensor


class Detection(Method):
    """Minimise the focal loss of the anchors' classes, and the smooth L1 loss of the boxes of those that match.

    A box is fitted as its centre's distance from the anchor's, in the anchor's sides, and the log of its sides in them.

    The box of a structure is that of its voxels in the augmented crop. Of one that the crop's border cuts, the visible
    part is boxed; where ``voxels`` tells how large it is as a whole, only if enough of it is there.

    Args:
        encoder: The network to fine-tune, for 2D or 3D images. Its levels of stride ``finest_stride`` and above, or the
            coarsest alone, carry the pyramid.
        structures: Names of the classes 1, 2, ...
        mirrored: The class that each class becomes in a left-right mirror image; None leaves mirroring off.
        voxels: (scans, classes), how many voxels each training scan has of each class, the background first, by the
            batch's ``index``; None boxes all that is visible.
        least_share: Share of a structure that must be in the crop, where ``voxels`` is given.
        width: Channels of the pyramid and the heads, a multiple of 8; the paper's 256 is for photographs.
        finest_stride: Of the pyramid, voxels. Half of it makes 3D images 8 times as costly.
        anchors: Sides of the square or cubic anchors at each place, in strides of its level; one, of 8, in ATSS.
        candidates: How many anchors per level the matcher looks at for a structure; 9 in ATSS.
        gamma: Of the focal loss: how little easy anchors count.
        alpha: Of the focal loss: the weight of anchors that match, the others have 1 - alpha.
        box_weight: Of the boxes' loss, a mean over the coordinates, beside the classes'.
        least_score: Boxes below are not returned.
        overlap: Of two boxes of one class whose intersection over union is larger, the surer one is returned.
        augment: Applied to each training batch.

    Raises:
        InputError: ``width`` is no multiple of 8, there is no structure, or ``voxels`` is of other classes.
    """

    mirrored: Tensor | None
    voxels: Tensor | None

    def __init__(
        self,
        encoder: Encoder,
        structures: Sequence[str],
        mirrored: Sequence[int] | None = None,
        voxels: Sequence[Sequence[int]] | None = None,
        least_share: float = 0.3,
        width: int = 64,
        finest_stride: int = 4,
        anchors: Sequence[float] = (4.0,),
        candidates: int = 9,
        gamma: float = 2.0,
        alpha: float = 0.25,
        box_weight: float = 2.0,
        least_score: float = 0.05,
        overlap: float = 0.2,
        augment: Augmentation = Augmentation(),
    ) -> None:
        super().__init__()
        if width % _GROUPS or not structures:
            raise InputError(
                f"Detection needs a width that is a multiple of {_GROUPS} and one structure or more, got width={width} "
                f"and {len(structures)} structures."
            )
        self.encoder, self.structures, self.augment = encoder, tuple(structures), augment
        self.least_share, self.box_weight, self.overlap = least_share, box_weight, overlap
        # Held so that a training that was stopped does not go on with others.
        self.settings = (finest_stride, *anchors, candidates, gamma, alpha)
        first = next((i for i, s in enumerate(encoder.strides) if s >= finest_stride), len(encoder.strides) - 1)
        strides, dims = encoder.strides[first:], encoder.spatial_dims
        pyramid = Pyramid(encoder, first, width)
        network = RetinaNet(dims, len(structures), len(anchors), pyramid, size_divisible=max(encoder.strides))
        self.detector = _Detector(
            network, AnchorGeneratorWithAnchorShape(strides, [(side,) * dims for side in anchors])
        )
        self.detector.set_atss_matcher(candidates)
        self.detector.set_cls_loss(FocalLoss(gamma=gamma, alpha=alpha, reduction="none"))
        self.detector.set_box_regression_loss(nn.SmoothL1Loss(beta=_BETA), encode_gt=True, decode_pred=False)
        self.detector.set_box_selector_parameters(least_score, nms_thresh=overlap, detections_per_img=100)
        known = None if voxels is None else torch.as_tensor(voxels)
        if known is not None and known.shape[1:] != (len(structures) + 1,):
            raise InputError(
                f"{len(structures)} structures and the background need {len(structures) + 1} voxel counts per scan, "
                f"got {tuple(known.shape)}."
            )
        # Not in state_dict: they are the training data's, and a detector is used without it.
        self.register_buffer("voxels", known, persistent=False)
        self.register_buffer("mirrored", None if mirrored is None else torch.as_tensor(mirrored), persistent=False)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Focal loss and box loss of an augmented batch, which needs image, label and seed (index with ``voxels``)."""
        require(batch, "image", "label", "seed")
        label = batch["label"]
        if self.voxels is not None:
            require(batch, "index")
            label = without_cut_off(label, self.voxels[batch["index"]], self.least_share)
        image, label = self.augment(batch["image"], label, batch["seed"], self.mirrored)
        check_image(image, self.encoder)
        targets = [
            {"boxes": found.corners, "labels": found.classes - 1} for found in boxes_of(label, len(self.structures) + 1)
        ]
        classification, box = self.detector.losses(image, self.encoder(image), targets)
        return {
            "loss": classification + self.box_weight * box,
            "classification": classification.detach(),
            "box": box.detach(),
        }

    @torch.no_grad()
    def detect(self, image: Tensor) -> Detections:
        """Find the structures of an image (C, *spatial) that the network sees at once; its mode is put back."""
        training = self.training
        self.eval()
        padded, sizes = pad_images(image.unsqueeze(0), self.encoder.spatial_dims, max(self.encoder.strides))
        check_image(padded, self.encoder)
        found = self.detector.found(padded, self.encoder(padded), sizes)
        self.train(training)
        return found


class Pyramid(nn.Module):
    """Turn an encoder's feature maps into maps of one width, the coarse ones added to the fine ones.

    Args:
        encoder: Whose contract it is built from; it is not held.
        first: Number of the finest level that is used.
        width: Channels of each map.
    """

    def __init__(self, encoder: Encoder, first: int, width: int) -> None:
        super().__init__()
        self.first, self.out_channels = first, width
        self.pyramid = FeaturePyramidNetwork(encoder.spatial_dims, list(encoder.channels[first:]), width)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Turn all feature maps, finest first, into (B, width, *spatial / strides[i]) for i from ``first`` on."""
        named = {str(level): feature for level, feature in enumerate(features[self.first :])}
        return list(self.pyramid(named).values())


class _Detector(RetinaNetDetector):
    """MONAI's detector, on features, in float32, and without torchvision, which its choice of a matcher asks for."""

    def losses(
        self, image: Tensor, features: Sequence[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """Focal loss per matched anchor, as in the paper, and the mean box loss; 0 where nothing matches."""
        logits, offsets, places = self._maps(image, features)
        anchors = self.anchors or []
        matched = self.compute_anchor_matched_idxs(anchors, targets, places)
        matches = sum(int((index >= 0).sum()) for index in matched)
        classification = self.compute_cls_loss(logits, targets, matched).sum() / max(matches, 1)
        box = self.compute_box_loss(offsets, targets, anchors, matched) if matches else 0 * offsets.sum()
        return classification, box

    def found(self, image: Tensor, features: Sequence[Tensor], sizes: list[list[int]]) -> Detections:
        """Boxes within the first of ``sizes``, of the one image."""
        logits, offsets, places = self._maps(image, features)
        maps = {self.cls_key: logits, self.box_reg_key: offsets}
        (one,) = self.postprocess_detections(maps, self.anchors or [], sizes, places)
        return Detections(one["boxes"], one["labels_scores"], one["labels"] + 1)

    def _maps(self, image: Tensor, features: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[int]]:
        """Class logits (B, anchors, structures), box offsets (B, anchors, 2 dims), and the places of each level.

        In float32: anchors take their precision from them, and in bf16 they would stand beside their places.
        """
        maps = {key: [one.float() for one in value] for key, value in self.network(features).items()}
        if self.anchors is not None and self.anchors[0].device != image.device:
            self.anchors = None  # which MONAI keeps while the images' shape stays
        self.generate_anchors(image, maps)
        logits, offsets = self._reshape_maps(maps[self.cls_key]), self._reshape_maps(maps[self.box_reg_key])
        return logits, offsets, [one.shape[2:].numel() for one in maps[self.cls_key]]

    def compute_anchor_matched_idxs(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]], num_anchor_locs_per_level: Sequence[int]
    ) -> list[Tensor]:
        """Say which box each anchor of each image is for, -1 for none; every box has one at least.

        ATSS alone leaves a box without anchor where the overlaps of its candidates differ so little, or lie in two
        heaps so equal, that none is above their mean by a standard deviation.
        """
        matched = []
        for places, target in zip(anchors, targets, strict=True):
            boxes = target["boxes"]
            if not len(boxes):
                matched.append(torch.full((len(places),), -1, device=places.device))
                continue
            iou, index = self.proposal_matcher(boxes, places, num_anchor_locs_per_level, self.num_anchors_per_loc)
            for alone in sorted(set(range(len(boxes))) - set(index.tolist())):
                index[iou[alone].masked_fill(index >= 0, -1).argmax()] = alone
            matched.append(index)
        return matched


def boxes_of(label: Tensor, classes: int) -> list[Boxes]:
    """Box each structure of label maps (B, *spatial) of class indices below ``classes``; the background has no box."""
    batch, dims = len(label), label.ndim - 1
    # Which class of which image each voxel is of, as one number.
    owner = label.long() + classes * torch.arange(batch, device=label.device).view(-1, *[1] * dims)
    low, high = [], []
    for axis in range(1, dims + 1):
        n = label.shape[axis]
        place = torch.arange(n, device=label.device).view(-1, *[1] * (dims - axis))
        seen = torch.zeros(batch * classes * n, dtype=torch.bool, device=label.device)
        seen[owner * n + place] = True  # whether the class has a voxel in that plane
        planes = seen.view(batch, classes, n).to(torch.uint8)
        low.append(planes.argmax(2))  # the first of the largest
        high.append(n - planes.flip(2).argmax(2))
    present = planes.bool().any(2)
    present[:, 0] = False
    corners = torch.stack(low + high, dim=2).float()  # (B, classes, 2 dims)
    return [Boxes(corners[i, present[i]], present[i].nonzero()[:, 0]) for i in range(batch)]


def without_cut_off(label: Tensor, voxels: Tensor, least_share: float) -> Tensor:
    """Turn structures of which a crop holds too little into background.

    Args:
        label: (B, *spatial), class indices.
        voxels: (B, classes), of each class in the whole scan.
        least_share: Share of a structure's voxels that must be in the crop.
    """
    owner = label.flatten(1).long()  # (B, voxels of the crop)
    inside = torch.zeros_like(voxels).scatter_add_(1, owner, torch.ones_like(owner))
    kept = inside >= least_share * voxels  # (B, classes)
    return label * kept.gather(1, owner).view_as(label).to(label.dtype)
