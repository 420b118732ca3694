"""How well boxes are found: average precision, and whole images through a detector that sees windows.

Average precision as in Everingham et al., "The Pascal Visual Object Classes Challenge: A Retrospective", IJCV 2015,
section 3.1: the area under the precision-recall curve, its precision at a recall being the largest at that recall or
beyond.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from monai.data.box_utils import batched_nms, box_iou, clip_boxes_to_image
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from medssl.methods.detection import Boxes, Detection, Detections
from medssl.patches import check_patch

Floats = NDArray[np.float64]


def average_precision(
    found: Sequence[Detections], truth: Sequence[Boxes], classes: int, least_iou: float = 0.5
) -> Floats:
    """Average precision of each class over all images, (classes,); NaN for the background and where no image has one.

    The surest box comes first, of all images together. A box is right if, of the true boxes of its class in its image
    that no surer box has taken, the one that it overlaps most has an intersection over union of ``least_iou`` or more.

    Args:
        found: Per image.
        truth: Per image, in the same order.
        classes: Number of classes, the background included.
        least_iou: 0.5 is usual; 0.1 for structures of few voxels in 3D, where one voxel off costs half of the overlap.

    Raises:
        ValueError: There are not as many images of each.
    """
    precision = np.full(classes, np.nan)
    for index in range(1, classes):
        total = sum(int((boxes.classes == index).sum()) for boxes in truth)
        if total:
            pairs = [_right(one, boxes, index, least_iou) for one, boxes in zip(found, truth, strict=True)]
            scores, right = (np.concatenate(part) for part in zip(*pairs, strict=True))
            precision[index] = area_under_curve(right[np.argsort(-scores, kind="stable")], total)
    return precision


def area_under_curve(right: NDArray[np.bool_], total: int) -> float:
    """Area under the precision-recall curve.

    Args:
        right: (N,), whether each box that was found is right, the surest first.
        total: How many boxes there are to find.
    """
    hits = right.cumsum()
    precision = hits / np.arange(1, len(right) + 1)
    at_or_beyond = np.maximum.accumulate(precision[::-1])[::-1]
    return float((at_or_beyond * right).sum() / total)  # recall grows by 1 / total at each right box


def _right(found: Detections, truth: Boxes, index: int, least_iou: float) -> tuple[Floats, NDArray[np.bool_]]:
    """Scores (N,) of one class's boxes in an image, the surest first, and which of them are right (N,)."""
    mine, theirs = found.classes == index, truth.classes == index
    scores, order = found.scores[mine].float().cpu().sort(descending=True, stable=True)
    iou = np.asarray(box_iou(found.corners[mine].float().cpu()[order], truth.corners[theirs].float().cpu()))
    right = np.zeros(len(scores), dtype=bool)
    for i in range(len(scores)):
        best = int(iou[i].argmax()) if iou.shape[1] else -1
        if best >= 0 and iou[i, best] >= least_iou:
            right[i] = True
            iou[:, best] = -1  # taken
    return scores.numpy().astype(np.float64), right


def detect_windows(method: Detection, image: Tensor, patch_size: Sequence[int]) -> Detections:
    """Find the structures of a whole image (C, *spatial) through windows that overlap by half.

    Of the boxes that a window finds, those are taken whose centre is nearer to its middle than to any other window's:
    there the window sees as much around them as any does, and a structure of up to half its size as a whole.

    Args:
        method: Evaluated on the device of ``image``.
        image: Smaller than the window is padded at its end with 0.
        patch_size: Of the windows, voxels.
    """
    check_patch(patch_size, image.ndim - 1)
    shape = image.shape[1:]
    missing = [max(edge - n, 0) for n, edge in zip(shape, patch_size, strict=True)]
    padded = F.pad(image, [side for m in reversed(missing) for side in (0, m)])  # torch wants the last axis first
    axes = [window_starts(n, edge) for n, edge in zip(padded.shape[1:], patch_size, strict=True)]
    parts = []
    for starts in product(*axes):
        window = tuple(slice(start, start + edge) for start, edge in zip(starts, patch_size, strict=True))
        seen = method.detect(padded[(slice(None), *window)])
        corners = seen.corners + torch.tensor(starts * 2, device=image.device)
        own = (_nearest(corners, axes, patch_size) == torch.tensor(starts, device=image.device)).all(1)
        parts.append((corners[own], seen.scores[own], seen.classes[own]))
    corners, scores, classes = (torch.cat(part) for part in zip(*parts, strict=True))
    within, inside = (torch.as_tensor(part) for part in clip_boxes_to_image(corners, shape))
    kept = torch.as_tensor(batched_nms(within, scores[inside], classes[inside], method.overlap))  # the surest first
    return Detections(within[kept], scores[inside][kept], classes[inside][kept])


def _nearest(corners: Tensor, axes: Sequence[Sequence[int]], patch_size: Sequence[int]) -> Tensor:
    """Where the window begins whose middle is nearest to each box's, along each axis; (N, dims)."""
    centres = (corners[:, : len(axes)] + corners[:, len(axes) :]) / 2
    begins = []
    for centre, starts, edge in zip(centres.unbind(1), axes, patch_size, strict=True):
        begin = torch.tensor(starts, device=corners.device)
        begins.append(begin[(centre[:, None] - begin - edge / 2).abs().argmin(1)])
    return torch.stack(begins, dim=1)


def window_starts(n: int, edge: int) -> list[int]:
    """Where the fewest windows of ``edge`` that overlap by half or more begin along an axis of ``n`` >= ``edge``."""
    count = 1 + -(-(n - edge) // max(edge // 2, 1))
    return [round(step * (n - edge) / max(count - 1, 1)) for step in range(count)]
