"""Structure from motion finds known camera paths again, and says what is missing where it cannot."""

import logging
from pathlib import Path

import numpy as np
import pytest
from textured_corner import CAMERA, ListedFrames, arc, filmed, turning

from medssl.data.camera import Camera, project
from medssl.data.colmap import colmap_sequence
from medssl.errors import InputError
from medssl.evaluation.trajectory import absolute_trajectory_error
from medssl.structure_from_motion import (
    Features,
    FrameChoice,
    Mapping,
    Matching,
    Outcome,
    Settings,
    reconstruct,
    reprojection_errors,
)
from medssl.structure_from_motion.frame_choice import BLACK, OVEREXPOSED, STATIC, USED, candidate_frames, choose
from medssl.structure_from_motion.incremental import (
    extract_features,
    fit,
    map_frames,
    match_features,
    quiet,
    read_matches,
)
from medssl.structure_from_motion.lens import colmap_parameters, field_of_view, guessed_parameters
from medssl.structure_from_motion.pictures import feature_mask, picture_name, read_mask, save_png, write_feature_picture
from medssl.structure_from_motion.undistorted import undistort_model

pycolmap = pytest.importorskip("pycolmap")

POSES = arc(8)
LENSES = {
    "none": (),
    "radial-tangential": (-0.2, 0.05, 0.001, -0.002),
    "radial-tangential 5": (-0.2, 0.05, 0.001, -0.002, 0.01),
    "radial-tangential 8": (-0.2, 0.05, 0.001, -0.002, 0.01, 0.02, 0.01, 0.001),
    "fisheye": (0.05, -0.01, 0.002, 0.0),
}


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return filmed(POSES)


@pytest.fixture(scope="module")
def outcome(pictures: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The corner filmed twice, with a cut: eight frames of it, then five before other walls."""
    frames = ListedFrames([*pictures, *filmed(arc(5, 0.3), seed=9)])
    return run(frames, tmp_path_factory.mktemp("cut"))


def run(frames: ListedFrames, out: Path, camera: Camera | str = CAMERA, **settings) -> Outcome:
    return reconstruct("film.mp4", frames, out, out / "work", camera, settings=Settings(**settings))


def lens(name: str) -> Camera:
    return Camera(640, 480, 500.0, 510.0, 322.0, 236.5, name.split()[0], LENSES[name])


def looked(pictures: list[np.ndarray], **choice) -> list:
    frames = ListedFrames(pictures)
    mask = np.ones(frames.size, dtype=bool)
    return [look for look, _ in choose(frames, frames.times, mask, FrameChoice(**choice))]


@pytest.mark.parametrize("shift", [1, 2])
def test_motion_is_the_share_of_the_width_that_a_picture_moved(pictures: list[np.ndarray], shift: int) -> None:
    _, look = looked([pictures[0], np.roll(pictures[0], shift, axis=1)])
    assert look.motion == pytest.approx(shift / 200, rel=0.15)


def test_neither_noise_nor_the_lamp_is_motion(pictures: list[np.ndarray]) -> None:
    noise = np.random.default_rng(0).normal(0, 3, pictures[0].shape)
    noisy = np.clip(pictures[0] + noise, 0, 255).astype(np.uint8)
    darker = (0.95 * pictures[0]).astype(np.uint8)
    looks = looked([pictures[0], noisy, darker])
    assert [look.verdict for look in looks] == [USED, STATIC, STATIC]
    assert [look.verdict for look in looked([pictures[0], noisy, darker], motion=0)] == [USED] * 3


def test_slow_motion_adds_up_until_a_frame_is_used(pictures: list[np.ndarray]) -> None:
    slow = [np.roll(pictures[0], shift, axis=1) for shift in (0, 1, 2, 3, 4)]  # half a percent of the width each
    assert [look.verdict for look in looked(slow, motion=0.008)] == [USED, STATIC, USED, STATIC, USED]


def test_black_and_overexposed_frames_are_named(pictures: list[np.ndarray]) -> None:
    black, white = np.full_like(pictures[0], 5), np.full_like(pictures[0], 255)
    assert [look.verdict for look in looked([black, pictures[0], white])] == [BLACK, USED, OVEREXPOSED]


def test_frames_are_looked_at_between_start_and_end() -> None:
    times = np.arange(100) / 25
    assert candidate_frames(times, FrameChoice(every=10, start_s=1.0, end_s=2.0)) == [25, 35, 45]
    assert candidate_frames(times, FrameChoice(every=40)) == [0, 40, 80]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FrameChoice(every=0), "choice.every must be at least 1, got 0"),
        (lambda: FrameChoice(start_s=3, end_s=2), "choice.end_s must be after choice.start_s, got 3 and 2"),
        (lambda: Features(peak_threshold=0), "features.peak_threshold must be above 0"),
        (lambda: Matching(overlap=0), "matching.overlap must be at least 1"),
        (lambda: Mapping(first_angle_deg=100), "mapping.first_angle_deg is 0 to 90, got 100"),
    ],
)
def test_settings_that_cannot_work_are_refused(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_features_are_not_looked_for_at_the_rim_nor_in_highlights() -> None:
    y, x = np.mgrid[:200, :200]
    mask = np.hypot(x - 100, y - 100) < 90
    frame = np.full((200, 200, 3), 90, dtype=np.uint8)
    frame[60:66, 60:66] = 255
    usable = feature_mask(frame, mask, (100, 100))
    assert usable[50, 50] and not usable[31, 31] and not usable[50, 5]
    assert not usable[~mask[1::2, 1::2]].any()


def test_a_picture_without_border_is_used_up_to_its_edge() -> None:
    frame = np.full((50, 50, 3), 90, dtype=np.uint8)
    assert feature_mask(frame, np.ones((50, 50), dtype=bool), (50, 50)).all()


def test_equalising_raises_the_contrast_of_what_is_flat(tmp_path: Path) -> None:
    y, x = np.mgrid[:96, :96]
    frame = np.repeat((100 + 2 * np.sin(x / 3) * np.sin(y / 4))[..., None], 3, axis=2).astype(np.uint8)
    mask = np.ones((96, 96), dtype=bool)
    for name, clip_limit in (("plain", 0.0), ("equal", 0.02)):
        write_feature_picture(frame, mask, Features(equalise=clip_limit), tmp_path / name, tmp_path / "masks", "a.png")
    plain, equal = (
        np.asarray(pycolmap.Bitmap.read(tmp_path / name / "a.png", False).to_array()) for name in ("plain", "equal")
    )
    assert equal.std() > 3 * plain.std()


def test_a_mask_of_another_size_or_all_dark_is_refused(tmp_path: Path) -> None:
    save_png(np.zeros((40, 60), dtype=np.uint8), tmp_path / "mask.png")
    with pytest.raises(InputError, match=r"mask.png: the mask is 60x40, the frames are 64x48"):
        read_mask(tmp_path / "mask.png", (48, 64))
    with pytest.raises(InputError, match=r"mask.png: the mask is dark everywhere"):
        read_mask(tmp_path / "mask.png", (40, 60))


@pytest.mark.parametrize("name", LENSES)
def test_colmap_sees_through_a_lens_what_medssl_sees(name: str) -> None:
    camera = lens(name)
    model, parameters = colmap_parameters(camera)
    theirs = pycolmap.Camera(model=model, width=640, height=480, params=parameters)
    points = np.random.default_rng(0).uniform((-0.5, -0.4, 1), (0.5, 0.4, 1.0), (50, 3))
    expected = np.asarray(theirs.img_from_cam(points)) - 0.5  # COLMAP's first pixel is centred at 0.5
    np.testing.assert_allclose(project(camera, points), expected, atol=1e-6)


def test_an_unknown_lens_begins_at_the_field_of_view() -> None:
    mask = np.zeros((200, 400), dtype=bool)
    mask[20:180, 100:260] = True
    assert field_of_view(mask, (100, 200)) == (80.0, 89.5, 49.5)
    assert guessed_parameters("SIMPLE_RADIAL", 80.0, 89.5, 49.5) == (56.0, 90.0, 50.0, 0.0)
    assert guessed_parameters("OPENCV", 80.0, 89.5, 49.5)[:4] == (56.0, 56.0, 90.0, 50.0)


def synthetic(folder: Path):
    """COLMAP's own exact test scene, in a database too."""
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_frames_per_rig, options.num_points3D = 1, 8, 60
    database = pycolmap.Database.open(folder / "database.db")
    model = pycolmap.synthesize_dataset(options, database)
    database.close()
    return model


def test_a_synthetic_scene_is_mapped_exactly(tmp_path: Path) -> None:
    truth = synthetic(tmp_path)
    (model,) = map_frames(tmp_path / "database.db", tmp_path, tmp_path / "models", Mapping(), False, seed=0)
    centres = [
        np.array([m.find_image_with_name(image.name).projection_center() for image in truth.images.values()])
        for m in (truth, model)
    ]
    poses = [np.tile(np.eye(4), (8, 1, 1)) for _ in range(2)]
    for pose, centre in zip(poses, centres, strict=True):
        pose[:, :3, 3] = centre
    assert absolute_trajectory_error(poses[1], poses[0]).rmse < 1e-4


def test_what_fits_less_well_is_worth_less(tmp_path: Path) -> None:
    model = synthetic(tmp_path)
    model.update_point_3d_errors()
    observations = model.compute_num_observations()
    assert fit(model, 4.0) == pytest.approx(observations)
    for point in model.points3D.values():
        point.error = 2.0
    assert fit(model, 4.0) == pytest.approx(0.75 * observations) and fit(model, 1.0) == 0


def test_an_undistorted_model_is_exact_in_the_full_size_picture(tmp_path: Path) -> None:
    model = synthetic(tmp_path)
    points = np.array([point.xyz for _, point in sorted(model.points3D.items())])
    focal, cx, cy, k = model.cameras[1].params
    full = Camera(2048, 1536, 2 * focal, 2 * focal, 2 * cx - 0.5, 2 * cy - 0.5, "radial-tangential", (k, 0, 0, 0))
    undistort_model(model, full)
    (tmp_path / "sparse").mkdir()
    model.write_binary(tmp_path / "sparse")
    for image in model.images.values():
        save_png(np.zeros((1536, 2048), dtype=np.uint8), tmp_path / "images" / image.name)
    sequence = colmap_sequence(tmp_path)
    assert sequence.camera == full.undistorted
    np.testing.assert_allclose(sequence.points.positions, points)
    assert len(sequence.points.seen) > 300 and reprojection_errors(sequence).max() < 1e-6


def test_the_way_before_a_textured_corner_is_found_again(outcome: Outcome) -> None:
    error = absolute_trajectory_error(outcome.poses, POSES)
    travelled = np.linalg.norm(np.diff(POSES[:, :3, 3], axis=0), axis=1).sum()
    assert error.n == 8 and error.rmse < 0.005 * travelled
    turned = error.alignment.rotation @ outcome.poses[:, :3, :3]
    assert np.abs(turned - POSES[:, :3, :3]).max() < 0.02
    assert outcome.summary()["reprojection_error_px"] < 0.2
    assert outcome.lens == CAMERA and outcome.calibration == "given"


def test_after_a_cut_the_largest_part_is_kept_and_the_other_told(outcome: Outcome) -> None:
    assert outcome.models["frames"].tolist() == [8, 5]
    assert outcome.models["first_s"].tolist() == [0.0, 8 / 25] and outcome.models["last_s"].tolist() == [
        7 / 25,
        12 / 25,
    ]
    assert outcome.frames["fate"].tolist() == ["registered"] * 8 + ["in another sub-model"] * 5
    np.testing.assert_allclose(outcome.times, np.arange(8) / 25)
    summary = outcome.summary()
    assert (summary["frames_used"], summary["frames_registered"], summary["sub_models"]) == (13, 8, 2)
    assert summary["share_registered"] == pytest.approx(8 / 13)


def test_the_best_of_three_attempts_is_kept(outcome: Outcome) -> None:
    attempts = outcome.attempts
    assert attempts["seed"].tolist() == [0, 1, 2] and attempts["kept"].tolist().count("yes") == 1
    kept = attempts[attempts["kept"] == "yes"].iloc[0]
    assert kept["frames"] == attempts["frames"].max() == 8 and kept["error_px"] < 0.2


def test_each_frame_tells_what_it_saw(outcome: Outcome) -> None:
    table = outcome.frames[:8]
    assert table["observations"].sum() == len(outcome.points.seen) == outcome.summary()["observations"]
    assert table["error_px"].between(0, 1).all() and outcome.frames["error_px"][8:].isna().all()
    assert (table["features"] >= table["observations"]).all()


def test_without_distortion_the_pictures_are_those_of_the_video(outcome: Outcome, pictures: list[np.ndarray]) -> None:
    for kept, picture in zip(outcome.sequence.frames.read(range(8)), pictures, strict=True):
        assert np.array_equal(kept, picture)


def test_points_have_the_colour_of_where_they_were_seen(outcome: Outcome, pictures: list[np.ndarray]) -> None:
    point, frame = outcome.points.seen.T
    x, y = np.rint(outcome.points.pixels).astype(int).T
    seen = np.stack(pictures)[frame, y, x].astype(float)
    means = np.stack([np.bincount(point, seen[:, c]) / np.bincount(point) for c in range(3)], axis=1)
    np.testing.assert_allclose(outcome.colours, means, atol=0.5 + 1e-9)


def test_an_unknown_lens_is_estimated(pictures: list[np.ndarray], tmp_path: Path) -> None:
    estimated = run(ListedFrames(pictures), tmp_path, "SIMPLE_RADIAL")
    assert estimated.calibration == "estimated (SIMPLE_RADIAL)" and estimated.lens.distortion == "radial-tangential"
    assert estimated.lens.fx == pytest.approx(CAMERA.fx, rel=0.1)
    assert estimated.sequence.camera == estimated.lens.undistorted


def test_features_and_matches_do_not_depend_on_threads_and_are_not_made_again(
    pictures: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = np.ones(pictures[0].shape[:2], dtype=bool)
    names = [picture_name(number) for number in range(4)]
    for name, picture in zip(names, pictures, strict=False):
        write_feature_picture(picture, mask, Features(), tmp_path / "pictures", tmp_path / "masks", name)
    databases = [tmp_path / f"{threads}.db" for threads in (1, 3)]

    def work(database: Path, threads: int) -> None:
        view = field_of_view(mask, mask.shape)
        folders = tmp_path / "pictures", tmp_path / "masks"
        extract_features(database, *folders, names, CAMERA, view, Features(), threads, seed=0)
        match_features(database, Matching(), threads, seed=0)

    for database, threads in zip(databases, (1, 3), strict=True):
        work(database, threads)
    one, three = (read_matches(database) for database in databases)
    assert one == three and min(one.features.values()) > 100
    apart = [int(b[:8]) - int(a[:8]) for a, b in one.pairs]
    assert sorted(apart) == [1, 1, 1, 2, 2]  # powers of two
    before = databases[0].stat().st_size
    for name in names:
        (tmp_path / "pictures" / name).write_bytes(b"")  # it would be noticed if it were read
    work(databases[0], 1)
    assert read_matches(databases[0]) == one and databases[0].stat().st_size == before


def test_a_warning_of_colmap_is_logged_once_with_its_count(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.WARNING), quiet():
        for _ in range(3):
            pycolmap.logging.warning("the lens is dirty")
        pycolmap.logging.info("a remark")
    assert [record.getMessage() for record in caplog.records] == ["COLMAP: the lens is dirty (3 times)"]
    assert "dirty" not in capfd.readouterr().err


def refused(frames: list[np.ndarray], out: Path, **settings) -> str:
    with pytest.raises(InputError) as caught:
        run(ListedFrames(frames), out, **settings)
    assert str(caught.value).startswith("film.mp4: ")
    return str(caught.value)


def test_two_frames_are_too_few(pictures: list[np.ndarray], tmp_path: Path) -> None:
    assert "2 frames are to be looked at, of 2; structure from motion needs at least 3" in refused(
        pictures[:2], tmp_path
    )


def test_a_camera_that_stands_still_is_refused(pictures: list[np.ndarray], tmp_path: Path) -> None:
    assert "1 of 5 frames can be used (4 no motion)" in refused([pictures[0]] * 5, tmp_path / "chosen")
    still = refused([pictures[0]] * 5, tmp_path / "all", choice=FrameChoice(motion=0))
    assert "without parallax: the camera stands still or only turns" in still


def test_a_camera_that_only_turns_is_refused(tmp_path: Path) -> None:
    assert "without parallax" in refused(filmed(turning(6)), tmp_path)


def test_frames_without_light_are_refused_with_their_number(pictures: list[np.ndarray], tmp_path: Path) -> None:
    dark, white = [np.full_like(pictures[0], 3)] * 4, [np.full_like(pictures[0], 255)] * 3
    message = refused([*dark, *white, pictures[0]], tmp_path)
    assert "1 of 8 frames can be used (4 black, 3 over-exposed)" in message
    assert "Give a part that is well exposed" in message and "stands still" not in message


def test_frames_without_texture_are_refused(tmp_path: Path) -> None:
    flat = [np.full((160, 200, 3), 120, dtype=np.uint8)] * 4
    assert "0 features each" in (message := refused(flat, tmp_path, choice=FrameChoice(motion=0)))
    assert "too little texture" in message


def test_frames_that_share_nothing_are_refused(tmp_path: Path) -> None:
    strangers = [filmed(arc(1), seed=10 * seed)[0] for seed in range(4)]
    assert "too little in common" in refused(strangers, tmp_path)


def test_more_frames_than_allowed_are_refused(pictures: list[np.ndarray], tmp_path: Path) -> None:
    assert "more than 4 frames are to be used, up to 0.2 s" in refused(pictures, tmp_path, choice=FrameChoice(most=4))
