"""What the made-up shapes say of their pictures is exactly so: masks, points and motion agree with one another."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage as ndi

from medssl.data.flow_files import read_flo
from medssl.errors import InputError
from medssl.object_tracking.mask_files import palette
from sample_data import make_shapes as command
from sample_data.painting import Swing, Texture
from sample_data.script import run_script
from sample_data.shapes import Layer, ShapeScene

SILENT = np.random.default_rng(0)  # where no noise is drawn


@pytest.fixture(scope="module")
def scene() -> ShapeScene:
    return ShapeScene(96, 128, objects=3, seed=4, deformation=0.3, occlusion=1)


def shapes_of(scene: ShapeScene) -> list[Layer]:
    return scene.layers[1 : scene.objects + 1]


def test_material_carried_to_the_picture_and_back_is_the_same(scene: ShapeScene) -> None:
    material = np.random.default_rng(0).uniform(-2, 2, (200, 2))
    for layer in scene.layers:
        np.testing.assert_allclose(layer.to_material(layer.to_picture(material, 0.7), 0.7), material, atol=1e-9)


def test_each_pixel_of_a_mask_lies_in_its_object_and_in_none_in_front_of_it(scene: ShapeScene) -> None:
    mask = scene.mask(0.5)
    assert set(np.unique(mask)) == {0, 1, 2, 3}
    for y, x in np.random.default_rng(0).integers(0, (96, 128), (400, 2)):
        pixel = np.array([[x, y]], dtype=float)
        inside = [layer.depth(layer.to_material(pixel, 0.5))[0] <= 1 for layer in scene.layers]
        front = max(number for number, within in enumerate(inside) if within)
        assert mask[y, x] == (front if front <= 3 else 0)


def test_a_visible_point_lies_on_its_objects_mask_and_a_hidden_one_does_not(scene: ShapeScene) -> None:
    seen = {False: 0, True: 0}
    for time_s in np.arange(0, 2, 0.2):
        mask = np.pad(scene.mask(time_s), 60)  # points may be outside
        for thing, (places, hidden) in enumerate(zip(*scene.points(time_s), strict=True), start=1):
            for (x, y), unseen in zip(places, hidden, strict=True):
                row, column = np.clip(np.rint([y, x]).astype(int) + 60, 0, np.array(mask.shape) - 1)
                assert (mask[row, column] != thing) == unseen
                seen[bool(unseen)] += 1
    assert min(seen.values()) > 20


def test_points_stay_where_they_are_on_a_bending_shape(scene: ShapeScene) -> None:
    layer = shapes_of(scene)[0]
    first, later = (layer.to_material(scene.points(t)[0][0], t) for t in (0.0, 1.3))
    np.testing.assert_allclose(first, later, atol=1e-9)
    apart = [np.linalg.norm(np.diff(scene.points(t)[0][0], axis=0), axis=1) / layer.scale(t) for t in (0.0, 1.3)]
    assert np.abs(apart[0] - apart[1]).max() > 0.01  # it does bend


def test_a_stiff_instrument_keeps_the_distances_of_its_points(scene: ShapeScene) -> None:
    layer = shapes_of(scene)[2]
    apart = [np.linalg.norm(np.diff(scene.points(t)[0][2], axis=0), axis=1) / layer.scale(t) for t in (0.0, 1.3)]
    np.testing.assert_allclose(apart[0], apart[1], atol=1e-9)


def test_flow_carries_each_mask_onto_the_next(scene: ShapeScene) -> None:
    flow, visible = scene.motion(0.4, 0.44)
    first, second = scene.mask(0.4), scene.mask(0.44)
    y, x = np.indices(first.shape)
    there = [np.rint(y + flow[..., 1]).astype(int)[visible], np.rint(x + flow[..., 0]).astype(int)[visible]]
    assert (second[there[0], there[1]] == first[visible]).mean() > 0.97  # edges are rounded
    assert 0.8 < visible.mean() < 1
    assert np.abs(flow[first > 0]).max() > 1


def test_flow_explains_the_next_picture(scene: ShapeScene) -> None:
    scene.light.strength = Swing.drawn(SILENT, 1.0, 0.0)
    first, second = (scene.render(t, SILENT, noise=0).astype(float) for t in (0.4, 0.44))
    flow, visible = scene.motion(0.4, 0.44)
    inner = visible & ndi.binary_erosion(visible, iterations=2)
    assert warp_error(first, second, flow)[inner].mean() < 0.4 * warp_error(first, second, 0 * flow)[inner].mean()


def warp_error(
    first: NDArray[np.float64], second: NDArray[np.float64], flow: NDArray[np.float32]
) -> NDArray[np.float64]:
    y, x = np.indices(flow.shape[:2])
    places = [y + flow[..., 1], x + flow[..., 0]]
    warped = [ndi.map_coordinates(second[..., c], places, order=1, mode="nearest") for c in range(3)]
    return np.abs(np.stack(warped, axis=-1) - first).mean(axis=-1)


def test_a_shaft_hides_points_and_is_no_object() -> None:
    without, with_one = (ShapeScene(96, 128, seed=4, occlusion=count) for count in (0, 1))
    times = np.arange(0, 2, 0.2)
    hidden = [sum(scene.points(t)[1].sum() for t in times) for scene in (without, with_one)]
    covered = [sum((scene.mask(t) == 0).sum() for t in times) for scene in (without, with_one)]
    assert hidden[0] < hidden[1] and covered[0] < covered[1]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_objects_differ_in_colour_from_one_another_and_from_the_ground(seed: int) -> None:
    scene = ShapeScene(96, 128, objects=3, seed=seed, occlusion=0)
    pictures = [(scene.render(t, SILENT, noise=0), scene.mask(t)) for t in (0.0, 0.8, 1.6)]
    means = [
        np.concatenate([picture[mask == number] for picture, mask in pictures]).mean(axis=0) for number in range(4)
    ]
    for one in range(4):
        for other in range(one):
            assert np.abs(means[one] - means[other]).max() > 15
    assert means[0][0] > means[0][1] and np.ptp(means[3]) < 30  # the ground is red, the instrument grey


def test_noise_has_the_strength_that_is_asked_for_and_grey_pictures_no_colour(scene: ShapeScene) -> None:
    clean = scene.render(0.2, SILENT, noise=0).astype(float)
    noisy = scene.render(0.2, np.random.default_rng(1), noise=3.0)
    middle = (clean > 15) & (clean < 240)
    assert np.std((noisy - clean)[middle]) == pytest.approx(3.0, abs=0.2)
    grey = scene.render(0.2, np.random.default_rng(1), noise=3.0, grey=True)
    assert (grey == grey[..., :1]).all()


def test_a_texture_has_waves_of_its_band_alone() -> None:
    texture = Texture(np.random.default_rng(0), 0.5, 2.0)
    along = np.linspace(0, 16, 512, endpoint=False)  # a period
    y, x = np.meshgrid(along, along, indexing="ij")
    values = texture(np.column_stack([x.ravel(), y.ravel()])).reshape(512, 512)
    frequency = np.hypot(*np.meshgrid(*2 * (np.fft.fftfreq(512, 16 / 512),), indexing="ij"))
    power = np.abs(np.fft.fft2(values)) ** 2
    assert power[(frequency >= 0.5) & (frequency <= 2.0)].sum() / power.sum() > 0.99
    assert values.std() == pytest.approx(1, abs=0.1) and abs(values.mean()) < 1e-6


def test_the_palette_is_the_one_of_davis() -> None:
    colours = palette()
    expected = [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128], [0, 128, 128]]
    np.testing.assert_array_equal(colours[:7], expected)
    np.testing.assert_array_equal(colours[[8, 255]], [[64, 0, 0], [224, 224, 192]])


def test_the_command_writes_files_that_say_what_the_scene_knows_and_the_same_ones_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av")
    words = "--videos 2 --frames 3 --height 48 --width 64 --objects 2 --seed 5 --flow true"
    for name in ("one", "two"):
        monkeypatch.setattr("sys.argv", ["make_shapes", *f"--out {tmp_path / name} {words}".split()])
        assert run_script(command.make_shapes) == 0
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 2 * (2 + 3 + 3 + 2 + 2)
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    first, second = (tmp_path / "one" / f"shapes{number:03d}" for number in (0, 1))
    assert (first / "frames/00000000.png").read_bytes() != (second / "frames/00000000.png").read_bytes()
    with Image.open(first / "masks/00000002.png") as picture:
        assert picture.mode == "P" and (picture.getpalette() or [])[:768] == palette().ravel().tolist()
        mask = np.asarray(picture)
    table = pd.read_csv(first / "points.csv")
    assert list(table) == ["frame", "name", "x", "y", "hidden"] and len(table) == 3 * 2 * 5
    shown = table[(table["frame"] == 2) & (table["hidden"] == 0)]
    assert len(shown)
    for row in shown.itertuples():
        assert row.name.startswith(f"object{mask[round(row.y), round(row.x)]}_")
    flow = read_flo(first / "flow/00000001.flo")
    at = table[(table["frame"] == 1) & (table["hidden"] == 0)].merge(table[table["frame"] == 2], on="name")
    for row in at.itertuples():
        moved = flow[round(row.y_x), round(row.x_x)]
        assert np.abs(moved - [row.x_y - row.x_x, row.y_y - row.y_x]).max() < 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"videos": 0}, "0 videos of 60 frames"),
        ({"frames": 1}, "6 videos of 1 frames"),
        ({"height": 8}, "256x8 were asked for; at least 16x16"),
        ({"objects": 0}, "from 1 to 12, got 0"),
        ({"objects": 13}, "from 1 to 12, got 13"),
        ({"deformation": 0.7}, r"from 0 to 0\.4; got 0\.7"),
        ({"occlusion": -1}, "0 or more; got -1"),
        ({"noise": -1.0}, "0 or more; got -1"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, float], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        command.make_shapes(tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(InputError, match="is not empty"):
        command.make_shapes(tmp_path)
