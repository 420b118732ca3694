"""Every query stands beside its own neighbours, framed by whether they are rightly so."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.image import imread

from medssl.errors import InputError
from medssl.evaluation.retrieval import Neighbours
from medssl.report.neighbours import neighbours_picture

OUT = Path("not_written.png")
FOUND = Neighbours(np.array([[1, 2], [0, 2]]), np.array([[0.91, 0.5], [0.91, -0.25]]))
NAMES = ["polyp", "polyp", "ulcer"]


def images(count=3, shape=(1, 30, 20)):
    return [np.random.default_rng(number).uniform(size=shape).astype(np.float32) for number in range(count)]


def shown(axes):
    return axes.images[0].get_array()


def labelled(drawn, names=NAMES, **arguments):
    gallery = images(**arguments)
    return drawn(neighbours_picture, gallery[:2], gallery, FOUND, OUT, labels=names[:2], gallery_labels=names)


def test_each_row_is_a_query_and_its_neighbours(drawn):
    gallery = images()
    figure = drawn(neighbours_picture, gallery[:2], gallery, FOUND, OUT, "Nearest")
    assert len(figure.axes) == 6
    for axes, item in zip(figure.axes, (0, 1, 2, 1, 0, 2), strict=True):
        picture = gallery[item][0]
        low, high = np.percentile(picture, (0.5, 99.5))
        assert np.allclose(shown(axes), np.clip((picture.T - low) / (high - low), 0, 1), atol=1e-6)
    assert [axes.get_xlabel() for axes in figure.axes] == ["", "0.91", "0.50", "", "0.91", "-0.25"]
    assert [axes.get_title() for axes in figure.axes] == ["query", "1", "2", "", "", ""]
    assert figure.texts[0].get_text() == "Nearest"


def test_queries_are_in_the_left_column_and_neighbours_in_order_to_their_right(drawn):
    gallery = images()
    boxes = [axes.get_position() for axes in drawn(neighbours_picture, gallery[:2], gallery, FOUND, OUT).axes]
    assert boxes[0].x1 < boxes[1].x0 < boxes[1].x1 < boxes[2].x0
    assert boxes[0].x0 == boxes[3].x0
    assert boxes[3].y1 < boxes[0].y0
    assert all(box.x0 > 0 and box.x1 < 1 and box.y0 > 0 and box.y1 < 1 for box in boxes)


def test_frames_are_green_with_a_tick_for_the_same_label_and_red_with_a_cross_and_its_name_for_another(drawn):
    figure = labelled(drawn)
    query, same, other = figure.axes[:3]
    assert query.get_xlabel() == "polyp"
    assert same.get_xlabel() == "✓ 0.91"
    assert other.get_xlabel() == "✗ 0.50 ulcer"
    green, red = (np.array(axes.spines["top"].get_edgecolor()[:3]) for axes in (same, other))
    assert green.argmax() == 1 and red.argmax() == 0
    assert to_hex(query.spines["left"].get_edgecolor()) == "#ffffff"
    said = [text.get_text() for text in figure.texts]
    assert "✓ same label" in said and "✗ other label" in said


def test_without_labels_no_frame_judges(drawn):
    gallery = images()
    figure = drawn(neighbours_picture, gallery[:2], gallery, FOUND, OUT)
    frames = {to_hex(axes.spines["top"].get_edgecolor()) for axes in figure.axes}
    assert all(color[1:3] == color[3:5] == color[5:7] for color in frames)  # grey and white
    assert not any("label" in text.get_text() for text in figure.texts)


def test_long_names_are_shortened(drawn):
    captions = labelled(drawn, ["normal mucosa of the ascending colon"] * 3).axes[0].get_xlabel()
    assert captions.startswith("normal") and captions.endswith("…") and len(captions) < 25


def test_three_channels_are_colours_and_others_show_the_first(drawn):
    assert shown(labelled(drawn, shape=(3, 30, 20)).axes[0]).shape == (20, 30, 3)
    assert shown(labelled(drawn, shape=(2, 30, 20)).axes[0]).shape == (20, 30)


def test_a_volume_is_shown_by_its_middle_axial_slice_with_the_left_on_the_right(drawn):
    volume = np.zeros((3, 12, 16, 9), np.float32)
    volume[0, :6, :, 4] = 1  # the left half of the middle slice
    figure = drawn(neighbours_picture, [volume], [volume], Neighbours(np.array([[0]]), np.array([[1.0]])), OUT)
    axes = figure.axes[0]
    assert shown(axes).shape == (16, 12)
    assert shown(axes)[:, :6].min() == 1 and shown(axes)[:, 6:].max() == 0
    left, right = axes.get_xlim()
    low, high = axes.get_ylim()
    assert left > right and low < high  # low x, the patient's left, is drawn on the right; anterior is up
    assert any("patient's left on the right" in text.get_text() for text in figure.texts)


def test_proportions_are_those_of_the_spacing(drawn):
    gallery = images(shape=(1, 30, 20))
    axes = drawn(neighbours_picture, gallery[:2], gallery, FOUND, OUT, spacing_mm=(1, 3)).axes[0]
    assert tuple(axes.images[0].get_extent()) == (0, 30, 0, 60)
    assert axes.get_aspect() == 1
    assert axes.bbox.height / axes.bbox.width == pytest.approx(2)


def test_the_picture_is_written_whole_even_of_images_without_contrast(tmp_path):
    gallery = [np.full((1, 8, 8), 3.0)] * 3
    neighbours_picture(gallery[:2], gallery, FOUND, tmp_path / "neighbours.png", "Flat")
    assert [path.name for path in tmp_path.iterdir()] == ["neighbours.png"]
    assert imread(tmp_path / "neighbours.png").ndim == 3


def test_what_does_not_belong_together_is_refused(tmp_path):
    gallery = images()
    with pytest.raises(InputError, match=r"got 3 queries, a gallery of 3, and neighbours of the shape \(2, 2\)"):
        neighbours_picture(gallery, gallery, FOUND, OUT)
    with pytest.raises(InputError, match="a gallery of 2"):
        neighbours_picture(gallery[:2], gallery[:2], FOUND, OUT)
    with pytest.raises(InputError, match="each of 2 queries and each of 3 images of the gallery, got 1 labels and 3"):
        neighbours_picture(gallery[:2], gallery, FOUND, OUT, labels=["a"], gallery_labels=NAMES)
    with pytest.raises(InputError, match="got 2 labels and 0 gallery_labels"):
        neighbours_picture(gallery[:2], gallery, FOUND, OUT, labels=["a", "b"])
    with pytest.raises(InputError, match=r"got the shape \(8, 8\)"):
        neighbours_picture([np.zeros((8, 8))] * 2, gallery, FOUND, OUT)
