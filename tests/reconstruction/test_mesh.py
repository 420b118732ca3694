"""Normals, areas and parts of meshes."""

import numpy as np
import pytest

from medssl.errors import InputError
from medssl.reconstruction.mesh import Mesh, face_vectors, vertex_areas, vertex_normals, without_small_parts


def strip(squares: int, at: float) -> Mesh:
    """Unit squares in a row along x in the plane z = at, two triangles each, that look along z."""
    x = np.arange(squares + 1.0)
    vertices = np.stack([np.tile(x, 2), np.repeat([0.0, 1.0], squares + 1), np.full(2 * squares + 2, at)], axis=-1)
    a = np.arange(squares)
    b = a + squares + 1
    faces = np.concatenate([np.stack([a, a + 1, b], -1), np.stack([a + 1, b + 1, b], -1)]).astype(np.int32)
    vertices = vertices.astype(np.float32)
    return Mesh(vertices, faces, vertex_normals(vertices, faces), np.full((len(vertices), 3), at * 10, np.uint8), "mm")


def both(a: Mesh, b: Mesh) -> Mesh:
    pairs = [(getattr(a, n), getattr(b, n)) for n in ("vertices", "normals", "colours")]
    vertices, normals, colours = (np.concatenate(pair) for pair in pairs)
    return Mesh(vertices, np.concatenate([a.faces, b.faces + len(a.vertices)]), normals, colours, a.unit)


def test_faces_and_vertices_of_a_strip_have_its_normal_and_area() -> None:
    mesh = strip(5, 1)
    np.testing.assert_allclose(face_vectors(mesh.vertices, mesh.faces), np.tile([0, 0, 0.5], (10, 1)))
    np.testing.assert_allclose(mesh.normals, np.tile([0, 0, 1], (12, 1)))
    areas = vertex_areas(mesh)
    assert areas.sum() == pytest.approx(5)
    assert areas[0] == pytest.approx(1 / 6) and areas[1] == pytest.approx(3 / 6)


def test_parts_with_few_faces_are_left_out_and_the_greatest_stays() -> None:
    mesh = both(strip(2, 1), strip(30, 2))
    assert len(without_small_parts(mesh, 0.01).faces) == 64
    kept = without_small_parts(mesh, 0.1)
    np.testing.assert_array_equal(kept.vertices, strip(30, 2).vertices)
    np.testing.assert_array_equal(kept.faces, strip(30, 2).faces)
    assert (kept.colours == 20).all() and kept.unit == "mm"
    assert len(without_small_parts(mesh, 1.0).faces) == 60
    with pytest.raises(InputError, match="from 0 to 1"):
        without_small_parts(mesh, 5)
