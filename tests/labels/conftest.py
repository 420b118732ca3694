"""A small head with five structures, and the same head seen differently."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from medssl.data.volumes import Volume
from medssl.labels.atlas import Atlas

SHAPE, SPACING_MM = (40, 44, 38), 3.0


def _head() -> NDArray[np.uint8]:
    """Five blobs of tissue in an ellipsoid."""
    rng = np.random.default_rng(0)
    fields = ndimage.gaussian_filter(rng.standard_normal((5, *SHAPE)), (0, 4, 4, 4))
    grid = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    inside = sum(axis**2 for axis in grid) < 0.5
    return np.where(inside, fields.argmax(axis=0) + 1, 0).astype(np.uint8)


@pytest.fixture(scope="session")
def phantom() -> Callable[..., Atlas]:
    """Make the head: ``bend`` voxels of smooth deformation by ``seed``, own contrast and noise, shifted in space."""
    head = _head()

    def make(bend: float = 0.0, seed: int = 1, origin_mm: tuple[float, float, float] = (0, 0, 0)) -> Atlas:
        rng = np.random.default_rng(seed)
        field = ndimage.gaussian_filter(rng.standard_normal((3, *SHAPE)), (0, 6, 6, 6))
        places = np.indices(SHAPE) + bend * field / field.std()
        labels = ndimage.map_coordinates(head, places, order=0)
        tissue = np.array([0, 60, 110, 160, 210, 260]) * rng.uniform(0.5, 4)
        image = ndimage.gaussian_filter(tissue[labels], 0.6) + rng.normal(0, 2, SHAPE)
        affine = np.diag([-SPACING_MM, SPACING_MM, SPACING_MM, 1.0])
        affine[:3, 3] = origin_mm
        return Atlas(f"head-{seed}", Volume(image.astype(np.float32), affine), labels)

    return make
