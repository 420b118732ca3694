"""Pictures show points where the camera projects them, in the colours they have."""

from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
from reconstruction.scenes import INTRINSICS, SIZE, all_around, pose_at, sphere_depth, view_of

from medssl.errors import InputError
from medssl.reconstruction import render as module
from medssl.reconstruction.mesh import Mesh, vertex_normals
from medssl.reconstruction.overview import frustum, overview
from medssl.reconstruction.point_cloud import PointCloud, points_of
from medssl.reconstruction.render import Renderer, fly_through, render
from medssl.reconstruction.tsdf import TSDF

POSE = pose_at((3, -2, 5), (10, 20, 30))
COLOUR = (250, 120, 30)


def rectangle(left: float, top: float, right: float, bottom: float, z: float) -> Mesh:
    """What covers exactly these borders in the picture of a camera at `POSE`, at a depth; it faces the camera."""
    pixels = np.array([[left, top, 1], [right, top, 1], [right, bottom, 1], [left, bottom, 1.0]])
    camera = pixels @ np.linalg.inv(INTRINSICS).T * z
    vertices = (camera @ POSE[:3, :3].T + POSE[:3, 3]).astype(np.float32)
    faces = np.array([[0, 3, 2], [0, 2, 1]], dtype=np.int32)
    return Mesh(vertices, faces, vertex_normals(vertices, faces), np.tile(np.array(COLOUR, np.uint8), (4, 1)))


def test_a_rectangle_covers_its_pixels_and_no_other() -> None:
    picture = render(rectangle(20 - 0.5, 10 - 0.5, 31 - 0.5, 50 - 0.5, 40), INTRINSICS, POSE, SIZE, light=0)
    assert picture.shape == (*SIZE, 3) and picture.dtype == np.uint8
    expected = np.zeros((*SIZE, 3), dtype=np.uint8)
    expected[10:50, 20:31] = COLOUR
    np.testing.assert_array_equal(picture, expected)


def test_a_border_through_a_pixel_covers_its_share() -> None:
    picture = render(rectangle(20, 10 - 0.5, 31 - 0.5, 50 - 0.5, 40), INTRINSICS, POSE, SIZE, light=0)
    share = picture[12:48, 20, 0].mean() / COLOUR[0]
    assert 0.2 < share < 0.8 and not picture[:, 19].any()


def test_with_one_sample_a_pixel_is_covered_or_not() -> None:
    wall = rectangle(20.2, 10.3, 31.4, 50.2, 40)
    [picture] = fly_through(wall, POSE[None], INTRINSICS, SIZE, light=0, samples=1)
    assert {tuple(colour) for colour in picture.reshape(-1, 3).tolist()} == {COLOUR, (0, 0, 0)}


@pytest.mark.parametrize(("u", "v"), [(5.0, 7.0), (70.0, 8.0), (37.0, 31.0), (61.0, 52.0)])
def test_a_point_appears_where_it_is_projected_to(u: float, v: float) -> None:
    at = POSE[:3, :3] @ (np.linalg.inv(INTRINSICS) @ [u, v, 1] * 25) + POSE[:3, 3]
    cloud = PointCloud(at[None].astype(np.float32), np.zeros((1, 3), np.float32), np.full((1, 3), 255, np.uint8))
    picture = render(cloud, INTRINSICS, POSE, SIZE, light=0)[..., 0].astype(float)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    assert picture.any()
    assert (picture * columns).sum() / picture.sum() == pytest.approx(u, abs=0.6)
    assert (picture * rows).sum() / picture.sum() == pytest.approx(v, abs=0.6)


def test_what_is_behind_is_hidden_and_both_sides_are_drawn() -> None:
    near, far = rectangle(-0.5, -0.5, 79.5, 59.5, 20), rectangle(-0.5, -0.5, 79.5, 59.5, 30)
    faces = np.concatenate([near.faces[:, ::-1], far.faces + 4])
    colours = np.concatenate([near.colours, np.zeros_like(far.colours)])
    vertices = np.concatenate([near.vertices, far.vertices])
    picture = render(Mesh(vertices, faces, vertex_normals(vertices, faces), colours), INTRINSICS, POSE, SIZE, light=0)
    assert (picture == COLOUR).all()


def test_the_lamp_at_the_camera_darkens_what_is_seen_at_an_angle() -> None:
    wall = rectangle(-0.5, -0.5, 79.5, 59.5, 20)
    lit = render(wall, INTRINSICS, POSE, SIZE, light=1)[..., 0].astype(float)
    v, u = np.mgrid[: SIZE[0], : SIZE[1]]
    camera = np.stack([u, v, np.ones(SIZE)], axis=-1) @ np.linalg.inv(INTRINSICS).T
    np.testing.assert_allclose(lit, COLOUR[0] / np.linalg.norm(camera, axis=-1), atol=2)


def test_a_fused_scene_looks_as_the_pictures_it_is_made_of() -> None:
    views = [view_of(sphere_depth(20.0), pose) for pose in all_around((1, -2, 0))]
    tsdf = TSDF(np.array([[-24.0] * 3, [24.0] * 3]), 1.0)
    for view in views:
        tsdf.integrate(view)
    mesh = tsdf.mesh()
    with Renderer(mesh, SIZE, light=0) as renderer:
        for view in views[::4]:
            off = np.abs(renderer.picture(INTRINSICS, view.pose).astype(int) - view.colour)
            assert off.mean() < 3 and np.quantile(off, 0.99) < 12
    fresh = view_of(sphere_depth(20.0), pose_at((-3, 2, 4), (20, 70, 10)))  # which none was taken from
    off = np.abs(render(mesh, INTRINSICS, fresh.pose, SIZE, light=0).astype(int) - fresh.colour)
    assert off.mean() < 3 and np.quantile(off, 0.99) < 12


def test_a_cloud_from_its_own_camera_is_the_picture() -> None:
    view = view_of(sphere_depth(20.0), POSE)
    off = np.abs(render(points_of(view), INTRINSICS, POSE, SIZE, light=0).astype(int) - view.colour)
    assert off.mean() < 6


def test_a_flight_gives_one_picture_for_each_pose() -> None:
    wall = rectangle(-0.5, -0.5, 79.5, 59.5, 20)
    path = np.stack([POSE, pose_at((0, 0, 0)), POSE])
    pictures = list(fly_through(wall, path, INTRINSICS, SIZE, samples=4))
    assert len(pictures) == 3
    np.testing.assert_array_equal(pictures[0], pictures[2])
    np.testing.assert_array_equal(pictures[1], render(wall, INTRINSICS, path[1], SIZE))
    assert (pictures[0] != pictures[1]).any()


def test_an_overview_shows_surface_path_and_what_was_not_seen() -> None:
    wall = rectangle(-0.5, -0.5, 79.5, 59.5, 20)
    path = np.stack([POSE, POSE])
    path[1, :3, 3] += POSE[:3, 0] * 5
    picture = overview(wall, path, INTRINSICS, (120, 160), SIZE)
    assert picture.shape == (120, 160, 3)
    assert ((picture[..., 2] > 200) & (picture[..., 0] < 60)).any(), "the path, in blue"
    assert (picture == 255).all(axis=-1).mean() > 0.1, "the background"
    with pytest.raises(InputError, match="got 2 faces and 0 poses"):
        overview(wall, path[:0], INTRINSICS)


def test_a_drawn_camera_has_the_picture_s_corners() -> None:
    line = frustum(np.eye(4), INTRINSICS, SIZE, 2.0)
    top_left = np.linalg.inv(INTRINSICS) @ [-0.5, -0.5, 1] * 2
    np.testing.assert_allclose(line[1], top_left)
    assert (line[0] == 0).all() and set(np.round(line[:, 2], 9)) == {0.0, 2.0}


def test_without_opengl_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    window = SimpleNamespace(Initialize=lambda: None, MakeCurrent=lambda: None, IsCurrent=lambda: False)
    absent = SimpleNamespace(Plotter=lambda **_: SimpleNamespace(render_window=window, close=lambda: None))
    monkeypatch.setattr(module, "require_module", lambda name, _: absent if name == "pyvista" else import_module(name))
    with pytest.raises(InputError, match=r"no OpenGL.*libEGL"):
        module.plotter((10, 10), (0, 0, 0))


def test_what_no_camera_can_take_is_refused() -> None:
    wall = rectangle(0, 0, 10, 10, 20)
    with pytest.raises(InputError, match="light from 0 to 1"):
        render(wall, INTRINSICS, POSE, SIZE, light=2)
    with pytest.raises(InputError, match="fx, 0, cx"):
        render(wall, np.zeros((3, 3)), POSE, SIZE)
    with pytest.raises(InputError, match="NaN"):
        next(fly_through(wall, np.full((1, 4, 4), np.nan), INTRINSICS, SIZE))
