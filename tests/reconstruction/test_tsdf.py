"""Fused surfaces lie where the scene does, look as it does, and end where nothing was seen."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reconstruction.scenes import INTRINSICS, SIZE, all_around, paint, plane_depth, pose_at, sphere_depth, view_of

from medssl.errors import InputError
from medssl.reconstruction import isosurface
from medssl.reconstruction.coverage import boundary_loops
from medssl.reconstruction.depth_view import DepthView, scene_bounds, to_camera
from medssl.reconstruction.mesh import Mesh, face_vectors
from medssl.reconstruction.render import render
from medssl.reconstruction.tsdf import TSDF

RADIUS, VOXEL = 20.0, 1.0
BOUNDS = np.array([[-25.0] * 3, [25.0] * 3])


def sphere_views() -> list[DepthView]:
    """From a dozen and a half of poses around points off the centre."""
    places = [(2, -1, 0), (-3, 1, 2), (0, 2, -3)]
    return [view_of(sphere_depth(RADIUS), p) for i, p in enumerate(all_around()) for p in [moved(p, places[i % 3])]]


def moved(pose: np.ndarray, position: tuple[float, ...]) -> np.ndarray:
    pose = pose.copy()
    pose[:3, 3] = position
    return pose


@pytest.fixture(scope="module")
def sphere() -> Mesh:
    tsdf = TSDF(BOUNDS, VOXEL, "mm")
    for view in sphere_views():
        tsdf.integrate(view)
    return tsdf.mesh()


def test_vertices_lie_on_the_scene_within_a_fraction_of_a_voxel(sphere: Mesh) -> None:
    off = np.abs(np.linalg.norm(sphere.vertices, axis=1) - RADIUS)
    assert off.mean() < 0.03 * VOXEL and off.max() < 0.15 * VOXEL
    assert sphere.unit == "mm"


def test_a_scene_seen_from_all_sides_has_no_gap_and_the_area_it_should(sphere: Mesh) -> None:
    assert boundary_loops(sphere.faces) == []
    used = len(np.unique(sphere.faces))
    assert used - 3 * len(sphere.faces) // 2 + len(sphere.faces) == 2, "Euler's number of a sphere"
    area = np.linalg.norm(face_vectors(sphere.vertices, sphere.faces), axis=1).sum()
    assert area == pytest.approx(4 * np.pi * RADIUS**2, rel=0.01)


def test_colours_are_those_of_the_scene(sphere: Mesh) -> None:
    off = np.abs(sphere.colours - paint(sphere.vertices.astype(np.float64)))
    assert off.mean() < 2 and off.max() < 12  # the paint's slope is up to 14 a voxel


def test_normals_and_faces_look_into_free_space(sphere: Mesh) -> None:
    inwards = -sphere.vertices / np.linalg.norm(sphere.vertices, axis=1, keepdims=True)
    assert np.einsum("vc,vc->v", sphere.normals, inwards).min() > 0.97
    vectors, centres = face_vectors(sphere.vertices, sphere.faces), sphere.vertices[sphere.faces].mean(axis=1)
    assert (np.einsum("fc,fc->f", vectors, -centres) > -1e-6).all()


def test_the_order_of_views_does_not_matter(sphere: Mesh) -> None:
    tsdf = TSDF(BOUNDS, VOXEL, "mm")
    for view in reversed(sphere_views()):
        tsdf.integrate(view)
    mesh = tsdf.mesh()
    assert mesh.vertices.shape == sphere.vertices.shape
    np.testing.assert_allclose(mesh.vertices, sphere.vertices, atol=1e-3)


def test_chunks_meet_without_a_seam(sphere: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isosurface, "_CHUNK_BLOCKS", 2)
    monkeypatch.setattr(isosurface, "_CHUNK", 16)
    tsdf = TSDF(BOUNDS, VOXEL, "mm")
    for view in sphere_views():
        tsdf.integrate(view)
    mesh = tsdf.mesh()
    assert len(mesh.vertices) == len(sphere.vertices) and len(mesh.faces) == len(sphere.faces)
    assert boundary_loops(mesh.faces) == []


def test_what_no_view_saw_is_not_meshed() -> None:
    tsdf, pose = TSDF(BOUNDS, VOXEL), pose_at((1, 2, -4), (10, 30, 20))
    tsdf.integrate(view_of(sphere_depth(RADIUS), pose))
    points = to_camera(tsdf.mesh().vertices, pose)
    pixels = (points / points[:, 2:]) @ INTRINSICS.T
    assert (points[:, 2] > 0).all()
    assert (
        (pixels[:, :2] > -0.6).all() and (pixels[:, 0] < SIZE[1] - 0.4).all() and (pixels[:, 1] < SIZE[0] - 0.4).all()
    )


def test_what_a_mask_hides_is_not_meshed() -> None:
    valid = np.ones(SIZE, dtype=bool)
    valid[20:40, 30:50] = False
    tsdf = TSDF(BOUNDS, VOXEL)
    tsdf.integrate(view_of(sphere_depth(RADIUS), np.eye(4), valid))
    vertices = tsdf.mesh().vertices
    u, v, _ = INTRINSICS @ (vertices / vertices[:, 2:]).T
    assert not ((u > 30) & (u < 49) & (v > 20) & (v < 39)).any()
    assert ((u > 25) & (u < 54) & (v > 15) & (v < 44)).any()


@pytest.mark.parametrize("degrees", [0, 45, 75])
def test_a_wall_seen_at_a_grazing_angle_is_where_it_is(degrees: float) -> None:
    pose = pose_at((0, 0, -10), (0, degrees, 0))
    tsdf = TSDF(np.array([[-60.0, -30, -8], [60, 30, 8]]), VOXEL)
    tsdf.integrate(view_of(plane_depth(0.0), pose))
    mesh = tsdf.mesh()
    assert len(mesh.faces) > 100
    assert np.abs(mesh.vertices[:, 2]).max() < 1e-3 * VOXEL
    np.testing.assert_allclose(mesh.normals, np.tile([0, 0, -1.0], (len(mesh.normals), 1)), atol=1e-3)


def test_two_walls_are_averaged_by_cosine_over_depth() -> None:
    tsdf = TSDF(np.array([[-3.0, -3, -6], [3, 3, 6]]), 0.5)
    tsdf.integrate(view_of(plane_depth(0.0), pose_at((0, 0, -10))))
    tsdf.integrate(view_of(plane_depth(0.6), pose_at((0, 0, -19.4))))
    vertices = tsdf.mesh().vertices
    axis = vertices[np.hypot(vertices[:, 0], vertices[:, 1]) < 1]  # where both look almost head-on
    assert axis[:, 2] == pytest.approx((0.0 / 10 + 0.6 / 20) / (1 / 10 + 1 / 20), abs=0.01)


def test_a_surface_that_one_frame_imagined_is_left_out_when_two_must_have_seen_it() -> None:
    tsdf = TSDF(np.array([[-8.0, -8, -20], [8, 8, 20]]), VOXEL)
    tsdf.integrate(view_of(plane_depth(-12.0), pose_at((0, 0, -20))))
    for x in (-1, 0, 1):
        tsdf.integrate(view_of(plane_depth(10.0), pose_at((x, 0, -5))))
    assert tsdf.mesh().vertices[:, 2].min() < -11
    assert tsdf.mesh(min_frames=2).vertices[:, 2].min() > 9


def test_a_surface_that_others_see_through_goes() -> None:
    tsdf = TSDF(np.array([[-8.0, -8, -5], [8, 8, 20]]), VOXEL)
    tsdf.integrate(view_of(plane_depth(0.0), pose_at((0, 0, -20))))
    for _ in range(6):
        tsdf.integrate(view_of(plane_depth(15.0), pose_at((0, 0, -20))))
    assert tsdf.mesh().vertices[:, 2].min() > 14


def test_walls_at_a_jump_in_depth_are_not_joined() -> None:
    depth = np.full(SIZE, 10.0, dtype=np.float32)
    depth[:, 40:] = 20
    tsdf = TSDF(np.array([[-20.0, -20, 5], [20, 20, 25]]), VOXEL)
    tsdf.integrate(DepthView(depth, np.zeros((*SIZE, 3), np.uint8), INTRINSICS, np.eye(4)))
    z = tsdf.mesh().vertices[:, 2]
    assert ((np.abs(z - 10) < 0.01) | (np.abs(z - 20) < 0.01)).all()


def test_memory_is_held_near_surfaces_only_and_has_a_limit() -> None:
    view = view_of(sphere_depth(RADIUS), np.eye(4))
    tsdf = TSDF(BOUNDS, 0.25)
    tsdf.integrate(view)
    assert tsdf.held_bytes < 0.15 * 200**3 * 26
    small = TSDF(BOUNDS, 0.25, most_bytes=2**20)
    with pytest.raises(InputError, match=r"1 MiB.*greater voxel_size"):
        small.integrate(view)


def test_bounds_hold_what_was_seen_and_give_256_voxels() -> None:
    bounds = scene_bounds(sphere_views(), share=1.0)
    assert np.abs(bounds).max() == pytest.approx(RADIUS, abs=0.5) and np.abs(bounds).min() > 0.9 * RADIUS
    assert TSDF(bounds).voxel_size == pytest.approx((bounds[1] - bounds[0]).max() / 256)


def test_what_cannot_be_fused_is_refused_by_its_reason() -> None:
    colour, depth = np.zeros((*SIZE, 3), np.uint8), np.ones(SIZE, np.float32)
    with pytest.raises(InputError, match=r"\(60, 80, 3\).*\(30, 40, 3\)"):
        DepthView(depth, colour[::2, ::2], INTRINSICS, np.eye(4))
    with pytest.raises(InputError, match="NaN"):
        DepthView(depth, colour, INTRINSICS, np.full((4, 4), np.nan))
    with pytest.raises(InputError, match="Take scale"):
        DepthView(depth, colour, INTRINSICS, np.diag([2.0, 2, 2, 1]))
    with pytest.raises(InputError, match="fx, 0, cx"):
        DepthView(depth, colour, np.eye(4), np.eye(4))
    with pytest.raises(InputError, match="No view has a known depth"):
        scene_bounds([DepthView(depth * np.nan, colour, INTRINSICS, np.eye(4))])
    with pytest.raises(InputError, match="No surface"):
        TSDF(BOUNDS, VOXEL).mesh()
    with pytest.raises(InputError, match="too finely"):
        TSDF(BOUNDS, 1e-3)
    with pytest.raises(InputError, match="lowest and highest"):
        TSDF(BOUNDS[::-1], VOXEL)


@pytest.mark.real_data
def test_a_fused_stereo_pair_seen_from_the_other_eye_is_the_other_picture(real_data: Path) -> None:
    folder, step = real_data / "stereo/motorcycle/trainingQ/Motorcycle", 4
    left, right = (np.asarray(Image.open(folder / f"im{i}.png").convert("RGB").reduce(step)) for i in (0, 1))
    with (folder / "disp0GT.pfm").open("rb") as stream:
        _, (width, height), _ = stream.readline(), map(int, stream.readline().split()), stream.readline()
        disparity = np.fromfile(stream, "<f4").reshape(height, width)[::-1]
    size = (height // step, width // step)
    at = np.ix_(*(np.arange(n) * step + step // 2 for n in size))
    depth = 999.421 * 193.001 / (disparity[at] + 32.778)  # 0 where unknown
    intrinsics = np.array([[999.421, 0, 294.182], [0, 999.421, 252.932], [0, 0, step]]) / step
    intrinsics[:2, 2] -= np.array([0.5, 0.5])  # of pixels taken from the third of four
    view = DepthView(depth, np.ascontiguousarray(left[: size[0], : size[1]]), intrinsics, np.eye(4))
    tsdf = TSDF(scene_bounds([view], 1.0), 20.0, "mm")
    tsdf.integrate(view)
    other = intrinsics.copy()
    other[0, 2] += 32.778 / step
    seen = render(tsdf.mesh(), other, pose_at((193.001, 0, 0)), size, light=0).astype(int)
    shown = seen.any(axis=-1)
    assert shown.mean() > 0.6

    def off(shift: int) -> float:
        moved = np.roll(right[: size[0], : size[1]].astype(int), shift, axis=1)
        return float(np.abs(seen - moved)[shown].mean())

    assert off(0) < 25 and off(0) < min(off(-2), off(2))
