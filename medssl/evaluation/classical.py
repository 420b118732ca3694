"""Matching without learning, from libraries: what a network of disparity or of flow is compared with."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.extras import require_module

Floats = NDArray[np.float64]

_BLOCK = 5  # pixels, side of what is compared
_STEPS = 16  # OpenCV's unit: disparities are counted in multiples of it, and told in its parts
_UNIQUE_PERCENT = 10  # the best match is better than the next by so much
_SPECKLE_PIXELS, _SPECKLE_RANGE = 100, 2  # patches of so few pixels, that differ by so much from what is around them
_LUMA = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601


def semi_global_disparity(left: NDArray[np.uint8], right: NDArray[np.uint8], largest: float) -> Floats:
    """Match a rectified pair: disparity (H, W), pixels, NaN where left and right do not agree or nothing stands out.

    Hirschmüller, "Stereo Processing by Semiglobal Matching and Mutual Information", TPAMI 2008, with blocks in place of
    mutual information, as OpenCV has it; the smoothness penalties are those of its documentation.

    Args:
        left: (3, H, W).
        right: The same.
        largest: Disparity, pixels; the smallest is 0.

    Raises:
        InputError: OpenCV is not installed.
    """
    cv2: Any = require_module("cv2", "stereo")
    count = int(np.ceil(max(largest, 1) / _STEPS)) * _STEPS
    smooth = left.shape[0] * _BLOCK**2
    matcher = cv2.StereoSGBM_create(
        minDisparity=0,
        numDisparities=count,
        blockSize=_BLOCK,
        P1=8 * smooth,
        P2=32 * smooth,
        disp12MaxDiff=1,
        uniquenessRatio=_UNIQUE_PERCENT,
        speckleWindowSize=_SPECKLE_PIXELS,
        speckleRange=_SPECKLE_RANGE,
        mode=cv2.STEREO_SGBM_MODE_HH,
    )
    # Widened to the left, because no match is looked for where the farthest would be outside the picture.
    wide = [np.pad(picture.transpose(1, 2, 0), ((0, 0), (count, 0), (0, 0)), "edge") for picture in (left, right)]
    disparity = matcher.compute(*wide)[:, count:].astype(np.float64) / _STEPS
    matched = (disparity >= 0) & (disparity <= np.arange(disparity.shape[1]))  # the match is in the picture
    return np.where(matched, disparity, np.nan)


def variational_flow(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> Floats:
    """Flow (H, W, 2) from picture a to b, x and y, pixels.

    Zach, Pock, Bischof, "A Duality Based Approach for Realtime TV-L1 Optical Flow", DAGM 2007, as scikit-image has it.

    Args:
        a: (3, H, W).
        b: The same.

    Raises:
        InputError: scikit-image is not installed.
    """
    registration: Any = require_module("skimage.registration", "endoscopy")
    grey = [np.tensordot(_LUMA, picture.astype(np.float32) / 255, axes=1) for picture in (a, b)]
    rows, columns = registration.optical_flow_tvl1(*grey)
    return np.stack([columns, rows], axis=-1).astype(np.float64)
