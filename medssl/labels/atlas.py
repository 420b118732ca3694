"""Atlas registration: a labelled scan is deformed until it looks like another scan, and its labels go with it.

First an affine transform by mutual information (Mattes et al., IEEE TMI 2003) from the images' centres of mass, then
either symmetric-force demons (Thirion, Medical Image Analysis 1998; the forces of Vercauteren et al., NeuroImage 2009),
or a B-spline grid (Rueckert et al., IEEE TMI 1999). Both as SimpleITK has them, from coarse to fine.

Demons compare intensities directly, so both images are first made comparable: each voxel becomes its difference from
the mean around it, in units of the standard deviation around it. That takes out scale, contrast and bias field.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from medssl.data.volumes import Volume
from medssl.errors import InputError

Deformable = Literal["demons", "bspline"]

_LEVELS = (4, 2, 1)  # working voxels of each level, in units of the working spacing
_AFFINE_ITERATIONS = 100
_DEMONS_ITERATIONS = (40, 30, 20)
_BSPLINE_ITERATIONS = 10
_BSPLINE_GRID_MM = 40.0
_NEIGHBOURHOOD = 3.0  # standard deviation of what is "around" a voxel, in working voxels
_FLAT = 0.05  # a standard deviation that counts as flat, where the image runs from 0 to about 1


@dataclass(frozen=True, eq=False)
class Atlas:
    """A scan and its labels.

    Attributes:
        name: What messages call it.
        image: The scan.
        labels: Class indices on the scan's grid.
    """

    name: str
    image: Volume
    labels: NDArray[np.uint8]


def register(
    target: Volume,
    atlas: Volume,
    deformable: Deformable | None = "demons",
    working_spacing_mm: float = 2.0,
    seed: int = 0,
) -> sitk.Transform:
    """Find where each point of the target lies in the atlas. The same input gives the same transform, to the bit.

    Both should show the same part of the body, prepared alike (both with or both without the skull).

    Args:
        target: The scan to be labelled, 2D or 3D.
        atlas: The labelled scan; its origin may be anywhere.
        deformable: What follows the affine transform; ``None`` for nothing.
        working_spacing_mm: Voxel size at which the images are compared. Half of it takes eight times as long.
        seed: Of the voxels that mutual information is sampled at.

    Raises:
        InputError: There is no such registration, or the images cannot be brought to overlap.
    """
    if deformable not in (None, *get_args(Deformable)):
        raise InputError(f"There is no registration '{deformable}'; choose {', '.join(get_args(Deformable))} or none.")
    if target.data.ndim != atlas.data.ndim:
        raise InputError(f"A {atlas.data.ndim}D atlas cannot be registered to a {target.data.ndim}D scan.")
    with _one_thread():
        fixed, moving = (_resampled(_itk_image(from_0_to_1(v.data), v), working_spacing_mm) for v in (target, atlas))
        try:
            affine = _affine(fixed, moving, seed)
            if deformable is None:
                return affine
            warped = sitk.Resample(moving, fixed, affine, sitk.sitkLinear, 0.0)
            fixed, warped = _standardised(fixed), _standardised(warped)
            bend = _demons(fixed, warped) if deformable == "demons" else _bspline(fixed, warped, seed)
            return sitk.CompositeTransform([affine, bend])
        except RuntimeError as error:  # SimpleITK's only exception; its last line says what happened
            raise InputError(
                f"The atlas cannot be registered to the scan ({str(error).strip().splitlines()[-1]}). Check that both "
                "show the same part of the body in the same orientation."
            ) from error


def carry_labels(atlas: Atlas, transform: sitk.Transform, target: Volume) -> NDArray[np.uint8]:
    """Read the atlas's labels at each voxel of the target's own grid, from the nearest voxel; 0 outside the atlas."""
    return _carried(atlas.labels, atlas.image, transform, target, sitk.sitkNearestNeighbor)


def carry_image(atlas: Atlas, transform: sitk.Transform, target: Volume) -> NDArray[np.float32]:
    """Read the atlas's image, from 0 to about 1, at each voxel of the target's own grid."""
    return _carried(from_0_to_1(atlas.image.data), atlas.image, transform, target, sitk.sitkLinear)


def from_0_to_1(data: NDArray[Any]) -> NDArray[np.float32]:
    """Scale intensities so that the darkest hundredth is 0 and the brightest hundredth of the bright half 1."""
    low = np.percentile(data, 1)
    high = np.percentile(data[data > data.mean()], 99)
    span = max(high - low, np.finfo(np.float32).tiny)  # an image of hardly more than one value has none
    scaled: NDArray[np.float32] = np.clip((data.astype(np.float32) - low) / span, 0, 1.2, dtype=np.float32)
    return scaled


def _affine(fixed: sitk.Image, moving: sitk.Image, seed: int) -> sitk.Transform:
    start = sitk.CenteredTransformInitializer(
        fixed,
        moving,
        sitk.AffineTransform(fixed.GetDimension()),
        sitk.CenteredTransformInitializerFilter.MOMENTS,
    )
    method = _method(_LEVELS, share=0.1, seed=seed)
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=32)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0,
        minStep=1e-3,
        numberOfIterations=_AFFINE_ITERATIONS,
        relaxationFactor=0.6,
        gradientMagnitudeTolerance=1e-6,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(start, inPlace=False)
    found: sitk.Transform = method.Execute(fixed, moving)
    return found


def _bspline(fixed: sitk.Image, moving: sitk.Image, seed: int) -> sitk.Transform:
    size_mm = np.array(fixed.GetSize()) * fixed.GetSpacing()
    cells = np.maximum(1, np.round(size_mm / _BSPLINE_GRID_MM)).astype(int).tolist()
    transform: sitk.Transform = sitk.BSplineTransformInitializer(fixed, cells, order=3)
    levels = _LEVELS[:-1]  # the finest costs most of the time and gains little at this grid
    method = _method(levels, share=0.1, seed=seed)
    method.SetMetricAsMeanSquares()
    method.SetOptimizerAsLBFGS2(
        solutionAccuracy=1e-9,  # each of thousands of coefficients changes the mean by very little
        numberOfIterations=_BSPLINE_ITERATIONS,
        lineSearchMaximumEvaluations=5,
    )
    method.SetInitialTransformAsBSpline(transform, inPlace=True, scaleFactors=[2**i for i in range(len(levels))])
    method.Execute(fixed, moving)
    return transform


def _method(levels: tuple[int, ...], share: float, seed: int) -> sitk.ImageRegistrationMethod:
    """Set up what every optimised registration shares: ``share`` of the finest level's voxels, more of coarser ones."""
    method = sitk.ImageRegistrationMethod()
    method.SetInterpolator(sitk.sitkLinear)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentagePerLevel([min(1.0, share * level) for level in levels], seed + 1)  # 0: the clock
    method.SetShrinkFactorsPerLevel(levels)
    method.SetSmoothingSigmasPerLevel([level / 2 if level > 1 else 0.0 for level in levels])  # in voxels
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    return method


def _demons(fixed: sitk.Image, moving: sitk.Image) -> sitk.Transform:
    filter_ = sitk.FastSymmetricForcesDemonsRegistrationFilter()
    filter_.SetSmoothDisplacementField(True)
    filter_.SetStandardDeviations(1.0)
    filter_.SetSmoothUpdateField(False)
    filter_.SetMaximumUpdateStepLength(2.0)
    field = None
    for level, iterations in zip(_LEVELS, _DEMONS_ITERATIONS, strict=True):
        spacing_mm = level * fixed.GetSpacing()[0]
        images = [_resampled(image, spacing_mm) for image in (fixed, moving)]
        filter_.SetNumberOfIterations(iterations)
        if field is not None:
            images.append(sitk.Resample(field, images[0]))
        field = filter_.Execute(*images)
    return sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))


def _standardised(image: sitk.Image) -> sitk.Image:
    """Express each voxel as its difference from the mean around it, in standard deviations around it."""
    data = sitk.GetArrayFromImage(image)
    mean = ndimage.gaussian_filter(data, _NEIGHBOURHOOD, truncate=3)
    variance = np.maximum(ndimage.gaussian_filter(data * data, _NEIGHBOURHOOD, truncate=3) - mean * mean, 0)
    # The floor keeps the noise of flat regions, such as the air, small.
    result = sitk.GetImageFromArray(((data - mean) / np.sqrt(variance + _FLAT**2)).astype(np.float32))
    result.CopyInformation(image)
    return result


def _resampled(image: sitk.Image, spacing_mm: float) -> sitk.Image:
    """Resample to voxels of ``spacing_mm`` over the same field of view, blurred where they are coarser."""
    old_mm = np.array(image.GetSpacing())
    if np.allclose(old_mm, spacing_mm):
        return image
    size = np.maximum(1, np.ceil(np.array(image.GetSize()) * old_mm / spacing_mm - 1e-6)).astype(int)
    corner = np.array(image.GetDirection()).reshape(len(size), -1) @ ((spacing_mm - old_mm) / 2)
    blurred = sitk.SmoothingRecursiveGaussian(image, np.where(spacing_mm > 1.2 * old_mm, spacing_mm / 2, 1e-3).tolist())
    return sitk.Resample(
        blurred,
        size.tolist(),
        sitk.Transform(),
        sitk.sitkLinear,
        (np.array(image.GetOrigin()) + corner).tolist(),
        [spacing_mm] * len(size),
        image.GetDirection(),
    )


def _carried(
    data: NDArray[Any], atlas: Volume, transform: sitk.Transform, target: Volume, interpolator: int
) -> NDArray[Any]:
    with _one_thread():
        reference = _itk_image(np.broadcast_to(np.uint8(0), target.data.shape), target)
        carried = sitk.Resample(_itk_image(data, atlas), reference, transform, interpolator, 0.0)
    return sitk.GetArrayFromImage(carried).T


def _itk_image(data: NDArray[Any], like: Volume) -> sitk.Image:
    """An ITK image of ``data`` on the grid of ``like``: axes reversed in memory, millimetres towards left and back."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(data.T))
    image.SetSpacing(like.spacing_mm)
    if data.ndim == 3:  # a 2D image lies in its own plane
        lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ like.affine
        image.SetOrigin(lps[:3, 3].tolist())
        image.SetDirection((lps[:3, :3] / like.spacing_mm).ravel().tolist())
    return image


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run SimpleITK on one thread: sums over threads differ in the last bits, and scans run in parallel already."""
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
