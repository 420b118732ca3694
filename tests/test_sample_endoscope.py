"""What the made-up endoscope says of its pictures is exactly so, and its pictures are fit to be worked with."""

from copy import copy
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage as ndi

from medssl.data.calibration import read_intrinsics, read_stereo
from medssl.data.camera import Camera
from medssl.data.flow_files import read_flo
from medssl.data.formats import read_picture
from medssl.errors import InputError
from medssl.evaluation.trajectory import read_tum
from sample_data import make_endoscopy as command
from sample_data.endoscope import EndoscopeScene, Optics, View, circle, endoscope_camera, right_of
from sample_data.script import run_script
from sample_data.tube import FORK_MM, SPACING_MM
from sample_data.wall import Wall

CAMERA = endoscope_camera(48, 64)
EVEN = Optics(light="even")


@cache
def scene_of(seed: int) -> EndoscopeScene:
    return EndoscopeScene(seed)


@pytest.fixture(scope="module")
def scene() -> EndoscopeScene:
    return scene_of(0)


@pytest.fixture(scope="module")
def moving(scene: EndoscopeScene) -> EndoscopeScene:
    moving = copy(scene)  # the tube is not made again
    moving.wall = Wall(scene.wall.tube, 0.1)
    return moving


@pytest.fixture(scope="module")
def views(scene: EndoscopeScene) -> list[View]:
    return scene.views(60, CAMERA)


def sampled(values: NDArray[np.generic], flow: NDArray[np.float32]) -> NDArray[np.float64]:
    """Look up (H, W) or (H, W, C) where flow points to."""
    y, x = np.indices(flow.shape[:2])
    places = [y + flow[..., 1], x + flow[..., 0]]
    channels = values.reshape(*values.shape[:2], -1).astype(float)
    found = [ndi.map_coordinates(channels[..., c], places, order=1, mode="nearest") for c in range(channels.shape[2])]
    return np.stack(found, axis=-1).reshape(values.shape)


def backprojected(view: View, depth: NDArray[np.float32]) -> NDArray[np.float64]:
    y, x = np.indices(depth.shape)
    K, pose = view.camera.matrix, view.pose
    rays = np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3) @ np.linalg.inv(K).T
    return (rays * depth.reshape(-1, 1)) @ pose[:3, :3].T + pose[:3, 3]


@pytest.mark.parametrize("frame", [0, 25, 50])
def test_depth_leads_to_the_wall_and_through_free_space_only(
    scene: EndoscopeScene, views: list[View], frame: int
) -> None:
    depth = scene.depth(views[frame])
    points = backprojected(views[frame], depth)
    assert np.abs(scene.wall.field(points)).max() < 1e-4
    origin = views[frame].pose[:3, 3]
    for share in np.linspace(0.02, 0.995, 60):
        assert scene.wall.field(origin + share * (points - origin)).min() > 0


def test_depth_is_exact_where_the_wall_moves(moving: EndoscopeScene, views: list[View]) -> None:
    view = views[20]._replace(time_s=0.7)
    points = backprojected(view, moving.depth(view))
    assert np.abs(moving.wall.field(points, 0.7)).max() < 1e-4
    assert np.abs(moving.wall.field(points, 0.0)).max() > 0.1


def test_a_distorting_lens_sees_the_same_points(scene: EndoscopeScene, views: list[View]) -> None:
    fisheye = replace(CAMERA, fx=24.0, fy=24.0, distortion="fisheye", coefficients=(0.05, -0.01, 0.0, 0.0))
    view = views[10]._replace(camera=fisheye)
    motion = scene.motion(view, view)
    looks = np.isfinite(scene.depth(view))
    assert looks.mean() > 0.5
    np.testing.assert_allclose(motion.flow[looks], 0, atol=1e-4)
    inside = looks.copy()
    inside[[0, -1]], inside[:, [0, -1]] = False, False  # a pixel on the edge may be rounded out of the picture
    assert motion.visible[inside].all()


def test_flow_in_a_rigid_scene_is_that_of_depth_and_pose(scene: EndoscopeScene, views: list[View]) -> None:
    first, second = views[14], views[15]
    depth, K = scene.depth(first).astype(float), CAMERA.matrix
    y, x = np.indices(depth.shape)
    p = np.stack([x, y, np.ones_like(x)]).reshape(3, -1)
    relative = np.linalg.inv(second.pose) @ first.pose
    q = K @ (relative[:3, :3] @ (np.linalg.inv(K) @ p * depth.reshape(1, -1)) + relative[:3, 3:])
    expected = (q[:2] / q[2] - p[:2]).T.reshape(*depth.shape, 2)
    flow = scene.motion(first, second).flow
    seen = q[2].reshape(depth.shape) > 1
    np.testing.assert_allclose(flow[seen], expected[seen], atol=1e-3)
    assert np.median(np.linalg.norm(flow, axis=-1)) > 0.5


def test_a_pixel_is_visible_where_nothing_stands_between_its_point_and_the_next_camera(
    scene: EndoscopeScene, views: list[View]
) -> None:
    camera = endoscope_camera(96, 128)
    first, second = (view._replace(camera=camera) for view in (views[28], views[34]))
    points = scene.points(first)
    motion = scene.motion(first, second, points)
    y, x = np.indices((96, 128))
    there_x, there_y = x + motion.flow[..., 0], y + motion.flow[..., 1]
    inside = (there_x > 0) & (there_x < 127) & (there_y > 0) & (there_y < 95)
    hidden = inside & ~motion.visible
    assert not motion.visible[~inside].any() and hidden.sum() > 10
    origin = second.pose[:3, 3]
    for pixels, stands_between in ((hidden, True), (motion.visible, False)):
        deepest = np.full(pixels.sum(), np.inf)
        for share in np.linspace(0.1, 0.9995, 200):
            deepest = np.minimum(deepest, scene.wall.field(origin + share * (points[pixels] - origin)))
        assert ((deepest < 0) == stands_between).mean() > 0.9


def test_disparity_is_focal_length_times_baseline_over_depth(scene: EndoscopeScene, views: list[View]) -> None:
    flow, visible = scene.motion(views[5], right_of(views[5], 4.0))
    np.testing.assert_allclose(-flow[..., 0], CAMERA.fx * 4.0 / scene.depth(views[5]), rtol=1e-5)
    np.testing.assert_allclose(flow[..., 1], 0, atol=1e-4)
    assert 0.5 < visible.mean() < 1


@pytest.mark.parametrize("stereo", [False, True])
def test_the_other_picture_warped_by_flow_is_this_one(scene: EndoscopeScene, views: list[View], stereo: bool) -> None:
    camera = endoscope_camera(144, 192)
    first = views[20]._replace(camera=camera)
    second = right_of(first) if stereo else views[21]._replace(camera=camera)
    assert_warped_is_same(scene, first, second)


def test_the_next_picture_of_a_moving_wall_warped_by_flow_is_this_one(
    moving: EndoscopeScene, views: list[View]
) -> None:
    camera = endoscope_camera(144, 192)
    first, second = (views[i]._replace(camera=camera) for i in (20, 21))
    assert_warped_is_same(moving, first, second._replace(time_s=first.time_s + 0.2))


def assert_warped_is_same(scene: EndoscopeScene, first: View, second: View) -> None:
    one, other = scene.render(first, EVEN), scene.render(second, EVEN)
    motion = scene.motion(first, second, one.points)
    error = np.abs(sampled(other.image, motion.flow) - one.image).mean(axis=-1)[motion.visible]
    unmoved = np.abs(other.image.astype(float) - one.image).mean(axis=-1)[motion.visible]
    assert error.mean() < 3
    assert error.mean() < 0.25 * unmoved.mean()


def test_flow_follows_the_tissue_of_a_moving_wall(moving: EndoscopeScene, views: list[View]) -> None:
    first, second = views[18]._replace(time_s=0.3), views[19]._replace(time_s=0.8)
    points = moving.points(first).reshape(-1, 3)

    def wave(z: NDArray[np.float64], t: float) -> NDArray[np.float64]:
        return 1 + 0.1 * np.sin(2 * np.pi * z / 26.0 - 2 * np.pi * t / 2.4)

    axis = moving.wall.tube.axis(points[:, 2])
    stretched = (wave(points[:, 2], 0.8) / wave(points[:, 2], 0.3))[:, None]
    there = np.column_stack([axis + stretched * (points[:, :2] - axis), points[:, 2]])
    assert np.abs(moving.wall.field(there, 0.8)).max() < 1e-4
    in_camera = (there - second.pose[:3, 3]) @ second.pose[:3, :3]
    pixels = in_camera @ CAMERA.matrix.T
    y, x = np.indices((48, 64))
    expected = (pixels[:, :2] / pixels[:, 2:]).reshape(48, 64, 2) - np.stack([x, y], axis=-1)
    seen = in_camera[:, 2].reshape(48, 64) > 1
    np.testing.assert_allclose(moving.motion(first, second).flow[seen], expected[seen], atol=1e-3)
    assert np.linalg.norm(there - points, axis=1).max() > 0.3


def test_tissue_carried_there_and_back_is_where_it_was(moving: EndoscopeScene) -> None:
    points = np.random.default_rng(0).uniform(-8, 40, (100, 3))
    np.testing.assert_allclose(moving.wall.carried(moving.wall.carried(points, 0.1, 0.9), 0.9, 0.1), points, atol=1e-9)


def test_no_part_of_the_wall_is_nearer_than_the_signed_distance(scene: EndoscopeScene) -> None:
    random, tube = np.random.default_rng(0), scene.wall.tube
    wall = tube.wall_points()
    points = wall[random.integers(0, len(wall), 60)] + random.normal(0, 0.7, (60, 3))
    signed = scene.wall.signed_distance(points)
    directions = random.standard_normal((3000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    radii = np.maximum(np.abs(signed) - 0.01, 0)
    alone = []
    for point, radius, distance in zip(points, radii, signed, strict=True):
        sphere = scene.wall.field(point + radius * directions)
        alone.append((np.sign(sphere) == np.sign(distance)).all())
    assert np.mean(alone) > 0.96
    assert np.abs(scene.wall.signed_distance(wall[:50])).max() < 1e-6


def test_the_tube_forks_in_two(scene: EndoscopeScene) -> None:
    low, high = scene.wall.tube.origin, scene.wall.tube.origin + SPACING_MM * np.array(scene.wall.tube.samples.shape)
    x, y = np.meshgrid(*(np.arange(a, b, 0.5) for a, b in zip(low[:2], high[:2], strict=True)), indexing="ij")
    openings = []
    for z in (FORK_MM - 20, FORK_MM + 24):
        plane = np.stack([x, y, np.full_like(x, z)], axis=-1)
        openings.append(ndi.label(scene.wall.field(plane.reshape(-1, 3)).reshape(x.shape) > 0)[1])
    assert openings == [1, 2]


@pytest.mark.parametrize("seed", [0, 1])
def test_two_openings_are_seen_before_the_fork(seed: int) -> None:
    scene = scene_of(seed)
    depth = scene.depth(scene.views(60, CAMERA)[30])
    second_largest = []
    for threshold_mm in range(24, 46, 2):
        labels, _ = ndi.label(depth > threshold_mm)
        areas = np.sort(np.bincount(labels.ravel(), minlength=3)[1:])
        second_largest.append(areas[-2])
    assert max(second_largest) > 40  # pixels


@pytest.mark.parametrize("seed", [0, 1])
def test_the_camera_goes_on_smoothly_swaying_and_turning_with_room_for_a_second_one(seed: int) -> None:
    scene = scene_of(seed)
    views = scene.views(60, CAMERA)
    poses = np.stack([view.pose for view in views])
    steps = np.diff(poses[:, :3, 3], axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    assert (lengths > 0.5).all() and (lengths < 1.5).all()
    forward = (steps * poses[:-1, :3, 2]).sum(axis=1)
    assert (forward > 0).all() and (forward / lengths).min() < 0.95  # some motion is sideways
    np.testing.assert_allclose(
        poses[:, :3, :3] @ poses[:, :3, :3].transpose(0, 2, 1), np.eye(3)[None].repeat(60, 0), atol=1e-9
    )
    turns = (np.einsum("nij,nij->n", poses[1:, :3, :3], poses[:-1, :3, :3]) - 1) / 2
    assert 1 < np.degrees(np.arccos(turns)).max() < 10
    both = np.concatenate([poses[:, :3, 3], [right_of(view).pose[:3, 3] for view in views]])
    assert scene.wall.field(both).min() > 1


def test_many_frames_make_shorter_steps_in_the_same_tube(scene: EndoscopeScene) -> None:
    few, many = scene.path(60), scene.path(300)
    assert np.linalg.norm(many[-1, :3, 3] - few[-1, :3, 3]) < 5
    assert np.linalg.norm(np.diff(many[:, :3, 3], axis=0), axis=1).max() < 0.5


def test_the_same_seed_makes_the_same_picture_and_another_seed_another(
    scene: EndoscopeScene, views: list[View]
) -> None:
    noisy = Optics(noise=2.0)
    first = scene.render(views[3], noisy, np.random.default_rng(5))
    again = EndoscopeScene(seed=0)
    second = again.render(again.views(60, CAMERA)[3], noisy, np.random.default_rng(5))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.depth, second.depth)
    other = scene_of(1)
    assert (other.render(other.views(60, CAMERA)[3], noisy, np.random.default_rng(5)).image != first.image).mean() > 0.5


def test_noise_has_the_strength_that_is_asked_for(scene: EndoscopeScene, views: list[View]) -> None:
    clean = scene.render(views[3], Optics(gloss=0))
    noisy = scene.render(views[3], Optics(gloss=0, noise=3.0), np.random.default_rng(0))
    middle = (clean.image > 30) & (clean.image < 225)
    assert np.std(noisy.image.astype(float)[middle] - clean.image[middle]) == pytest.approx(3.0, abs=0.2)


def test_outside_the_circle_the_picture_is_black_and_depth_is_known(scene: EndoscopeScene, views: list[View]) -> None:
    whole, round_ = scene.render(views[8]), scene.render(views[8], Optics(circular=True, exposure_mm=10))
    inside = circle(CAMERA)
    assert whole.mask.all()
    np.testing.assert_array_equal(round_.mask, inside)
    assert not round_.image[~inside].any() and not round_.highlight[~inside].any()
    assert (round_.image[inside].max(axis=-1) > 0).all()
    np.testing.assert_array_equal(round_.depth, whole.depth)
    assert inside[24, 32] and not inside[0, 0] and inside.mean() == pytest.approx(np.pi * 0.495**2 * 0.75, abs=0.02)


def test_the_light_falls_with_the_square_of_the_distance(scene: EndoscopeScene, views: list[View]) -> None:
    pixel = Camera(1, 1, 1000.0, 1000.0, 0.0, 0.0)  # sees one point, whose colour is not averaged away
    near = views[20]._replace(camera=pixel)
    back = np.eye(4)
    back[2, 3] = -8.0
    far = near._replace(pose=near.pose @ back)
    np.testing.assert_allclose(scene.points(near), scene.points(far), atol=1e-5)
    strengths = []
    for view in (near, far):
        image = scene.render(view, Optics(gloss=0, exposure_mm=25)).image
        strengths.append(-np.log(1 - (image[0, 0, 0] / 255) ** 2.2))
    distances = [float(scene.depth(view)[0, 0]) for view in (near, far)]
    assert strengths[0] / strengths[1] == pytest.approx((distances[1] / distances[0]) ** 2, rel=0.05)


def test_highlights_are_white_and_only_where_the_wall_shines(scene: EndoscopeScene, views: list[View]) -> None:
    shiny = scene.render(views[0])
    dull = scene.render(views[0], Optics(gloss=0, exposure_mm=shiny.exposure_mm))
    assert 0 < shiny.highlight.mean() < 0.1
    assert not dull.highlight.any()
    assert shiny.image[shiny.highlight].min() > 200
    assert (shiny.image >= dull.image).all()
    assert shiny.image[shiny.highlight].mean() > dull.image[shiny.highlight].mean() + 20


def test_the_surface_lies_on_the_wall_and_faces_the_lumen(moving: EndoscopeScene) -> None:
    pytest.importorskip("skimage")
    mesh = moving.surface_mesh(time_s=0.5)
    vertices = mesh.vertices.astype(float)
    assert np.abs(moving.wall.field(vertices, 0.5)).max() < 1e-4
    a, b, c = (vertices[mesh.faces[:, corner]] for corner in range(3))
    facing = np.cross(b - a, c - a)
    towards = (facing * mesh.normals[mesh.faces[:, 0]]).sum(axis=1) / np.maximum(np.linalg.norm(facing, axis=1), 1e-12)
    assert np.quantile(towards, 0.01) > 0.5
    assert mesh.unit == "mm" and (mesh.colours[:, 0] > mesh.colours[:, 2]).mean() > 0.9
    inwards = vertices[::50] + 0.1 * mesh.normals[::50]
    assert (moving.wall.field(inwards, 0.5) > 0).all()


def test_neighbouring_pictures_share_hundreds_of_keypoints_that_match_where_flow_says(scene: EndoscopeScene) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    views = scene.views(60, endoscope_camera(192, 240))[10:12]
    options = pycolmap.FeatureExtractionOptions(num_threads=1, use_gpu=False)
    sift = pycolmap.FeatureExtractor.create(options, pycolmap.Device.cpu)
    found = [sift.extract_from_uint8_array(scene.render(view).image.mean(axis=-1).astype(np.uint8)) for view in views]
    (here, one), (there, other) = (
        (np.array([[point.x, point.y] for point in keypoints]) - 0.5, words.data.astype(float))
        for keypoints, words in found
    )
    likeness = one @ other.T
    best, back = likeness.argmax(axis=1), likeness.argmax(axis=0)
    mutual = np.flatnonzero(back[best] == np.arange(len(one)))
    x, y = np.rint(here[mutual]).astype(int).T
    expected = here[mutual] + scene.motion(*views).flow[y.clip(0, 191), x.clip(0, 239)]
    right = np.linalg.norm(there[best[mutual]] - expected, axis=1) < 2
    assert right.sum() > 200


def test_what_cannot_be_is_refused(scene: EndoscopeScene, views: list[View], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"from 0 to 0\.2; got 0\.5"):
        Wall(scene.wall.tube, deformation=0.5)
    with pytest.raises(InputError, match="in the wall"):
        scene.depth(right_of(views[0], 40.0))
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(InputError, match="is not empty"):
        command.make_endoscopy(tmp_path)
    with pytest.raises(InputError, match="1 frames of 320x256"):
        command.make_endoscopy(tmp_path / "new", frames=1)


def test_the_command_writes_files_that_say_what_the_scene_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = pytest.importorskip("av") and pytest.importorskip("medssl.data.video")
    out = tmp_path / "made"
    words = f"--out {out} --frames 3 --height 32 --width 40 --seed 1 --stereo true --circular true --surface true"
    monkeypatch.setattr("sys.argv", ["make_endoscopy", *words.split()])
    assert run_script(command.make_endoscopy) == 0
    assert run_script(command.make_endoscopy) == 2  # the folder is not empty any more
    scene, camera = scene_of(1), endoscope_camera(32, 40)
    views = scene.views(3, camera)
    assert len(video.open_frames(out / "video.mp4")) == 3
    assert [len(list((out / kind).iterdir())) for kind in ("frames", "right", "depth", "flow")] == [3, 3, 3, 2]
    np.testing.assert_array_equal(np.load(out / "depth" / "00000002.npy"), scene.depth(views[2]))
    motion = scene.motion(views[0], views[1])
    np.testing.assert_array_equal(read_flo(out / "flow" / "00000000.flo"), motion.flow)
    np.testing.assert_array_equal(read_picture(out / "flow_visible" / "00000000.png").grey.T > 0, motion.visible)
    np.testing.assert_array_equal(read_picture(out / "mask.png").grey.T > 0, circle(camera))
    times, poses = read_tum(out / "poses.txt")
    np.testing.assert_allclose(times, [0, 0.04, 0.08])
    np.testing.assert_allclose(poses, np.stack([view.pose for view in views]), atol=1e-6)
    assert read_intrinsics(out / "camera.json", (32, 40)) == camera
    pair = read_stereo(out / "stereo.json", (32, 40))
    assert pair.baseline == 4.0 and pair.unit == "mm"
    disparity = np.load(out / "disparity" / "00000001.npy")
    np.testing.assert_allclose(disparity * np.load(out / "depth" / "00000001.npy"), camera.fx * 4.0, rtol=1e-4)
    assert (out / "surface.ply").stat().st_size > 100_000
