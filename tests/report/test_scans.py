"""Left is left, proportions are true, and every structure is drawn where it is."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread

from medssl.errors import InputError
from medssl.labels.lut import LabelSet, Structure
from medssl.report import qc_picture
from medssl.report.slices import views

OUT = Path("not_written.png")
RED, BLUE = (255, 0, 0), (0, 0, 255)
TWINS = LabelSet("twins", (Structure(1, "Left-A", RED), Structure(2, "Right-A", RED), Structure(3, "B", BLUE)))


def phantom():
    """A cube of dim tissue with a bright left half, a twin on each side and a blue structure in front."""
    image, labels = np.full((40, 40, 40), 0.3, np.float32), np.zeros((40, 40, 40), np.uint8)
    image[:20] = 1
    labels[5:15, 10:20, 10:30], labels[25:35, 10:20, 10:30], labels[5:35, 25:35, 10:30] = 1, 2, 3
    return image, labels


def pixels(axes):
    """What is inside some axes of a figure, (rows, columns, 3), the outer tenth with its letters left out."""
    canvas = FigureCanvasAgg(axes.figure)
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[::-1, :, :3] / 255  # from the bottom up, as extents are
    box = axes.get_window_extent()
    rim_x, rim_y = 0.1 * box.width, 0.1 * box.height
    inner = picture[int(box.y0 + rim_y) : int(box.y1 - rim_y), int(box.x0 + rim_x) : int(box.x1 - rim_x)]
    return inner[::-1]


def brightest(axes):
    """Where the brightest pixels are, as a share of the height (from the top) and of the width (from the left)."""
    grey = pixels(axes).mean(-1)
    return np.argwhere(grey > 0.99 * grey.max()).mean(0) / grey.shape


@pytest.mark.parametrize(("convention", "left"), [("radiological", "right"), ("neurological", "left")])
def test_the_left_of_the_patient_is_where_the_convention_puts_it(drawn, convention, left):
    figure = drawn(qc_picture, *phantom(), TWINS, OUT, spacing_mm=(1, 1, 1), convention=convention)
    for axes in figure.axes[:2]:  # axial and coronal
        assert (brightest(axes)[1] > 0.5) == (left == "right")
        letters = {text.get_text(): text.get_position()[0] for text in axes.texts}
        assert (letters["L"] > letters["R"]) == (left == "right")
    said = [text.get_text() for text in figure.texts]
    assert f"{convention} convention: patient's left is on the {left}" in said


@pytest.mark.parametrize(("convention", "anterior"), [("radiological", "left"), ("neurological", "right")])
def test_anterior_and_superior_are_where_the_letters_say(drawn, convention, anterior):
    image, labels = phantom()
    image[:, 30:, 30:] = 5  # anterior and superior
    figure = drawn(qc_picture, image, labels, TWINS, OUT, spacing_mm=(1, 1, 1), convention=convention)
    sagittal = figure.axes[2]
    from_top, from_left = brightest(sagittal)
    assert from_top < 0.5
    assert (from_left < 0.5) == (anterior == "left")
    letters = {text.get_text(): text.get_position() for text in sagittal.texts}
    assert letters["S"][1] > letters["I"][1]
    assert (letters["A"][0] < letters["P"][0]) == (anterior == "left")


def test_outlines_are_in_the_structures_colours_around_them_and_only_in_the_second_row(drawn):
    figure = drawn(qc_picture, *phantom(), TWINS, OUT, spacing_mm=(1, 1, 1), convention="neurological")
    alone, outlined = (pixels(figure.axes[number]) for number in (0, 3))
    assert np.ptp(alone, axis=-1).max() < 0.01  # grey
    blue = np.argwhere(outlined[..., 2] - outlined[..., 0] > 0.8) / outlined.shape[:2]
    # the cube in front: 5..35 of 40 from left to right, 25..35 upwards; a tenth of the panel is cut off each side
    assert blue.min(0) == pytest.approx([(5 - 4) / 32, (5 - 4) / 32], abs=0.03)
    assert blue.max(0) == pytest.approx([(15 - 4) / 32, (35 - 4) / 32], abs=0.03)
    assert (outlined[..., 0] - outlined[..., 2] > 0.8).any()


def test_a_right_structure_of_the_same_colour_is_dashed(drawn):
    figure = drawn(qc_picture, *phantom(), TWINS, OUT, spacing_mm=(1, 1, 1))
    lines = {line.get_label(): line.get_linestyle() for line in figure.legends[0].legend_handles}
    assert lines == {"Left-A": "-", "Right-A": "--", "B": "-"}
    own_color = LabelSet("own", (*TWINS.structures[:1], Structure(2, "Right-A", (0, 255, 0)), TWINS.structures[2]))
    figure = drawn(qc_picture, *phantom(), own_color, OUT, spacing_mm=(1, 1, 1))
    assert {line.get_linestyle() for line in figure.legends[0].legend_handles} == {"-"}


def test_an_anisotropic_volume_is_shown_in_its_true_proportions(drawn):
    image, labels = (array[:, :, ::4] for array in phantom())
    figure = drawn(qc_picture, image, labels, TWINS, OUT, spacing_mm=(1, 1, 4))
    for axes in figure.axes:
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        assert (abs(right - left), abs(high - low)) == (40, 40)
        assert axes.get_aspect() == 1


def test_what_these_slices_do_not_show_is_named(drawn):
    image, labels = phantom()
    labels[labels == 2] = 0
    labels[0, 0, 0] = 2
    labels[labels == 3] = 0
    figure = drawn(qc_picture, image, labels, TWINS, OUT, spacing_mm=(1, 1, 1))
    said = "\n".join(text.get_text() for text in figure.texts)
    assert "Not in these slices: Right-A" in said
    assert "Not labelled: B" in said


def test_a_scan_without_labels_and_one_without_contrast_are_drawn_too(tmp_path):
    image, labels = phantom()
    for number, (scan, drawn_labels) in enumerate(((image, labels * 0), (image * 0, labels), (image * 0, labels * 0))):
        qc_picture(scan, drawn_labels, TWINS, tmp_path / f"{number}.png", spacing_mm=(1, 1, 1))
        assert imread(tmp_path / f"{number}.png")[..., :3].max() > 0


def test_a_2d_image_is_drawn_as_pictures_are(drawn):
    image, labels = np.full((30, 20), 0.2, np.float32), np.zeros((30, 20), np.uint8)
    image[20:, 15:] = 1  # the last columns of the last rows
    labels[5:10, 5:10] = 3
    figure = drawn(qc_picture, image, labels, TWINS, OUT, spacing_mm=(1, 1))
    alone, _ = figure.axes
    assert (brightest(alone) > 0.5).all()
    assert not alone.texts
    assert not any("convention" in text.get_text() for text in figure.texts)


def test_the_slice_that_shows_structures_at_their_largest_is_chosen():
    image, labels = np.ones((20, 20, 20)), np.zeros((20, 20, 20), np.uint8)
    labels[3:9, 3:9, 2:5] = 1  # large, in the slices 2 to 4
    labels[12:14, 12:14, 4:9] = 2  # small, in the slices 4 to 8
    axial, *_ = views(image, labels, (1, 1, 1))
    assert axial.title == "axial, slice 4"


def test_slices_are_cropped_to_content_and_numbered_in_the_whole_volume():
    image, labels = np.zeros((60, 60, 60)), np.zeros((60, 60, 60), np.uint8)
    image[30:40, 30:40, 30:40], labels[33:36, 33:36, 35] = 1, 1
    axial, *_ = views(image, labels, (1, 1, 2.5))
    assert axial.title == "axial, slice 35"
    assert axial.image.shape == (20, 20)  # 10 and a margin of 5 mm on both sides


@pytest.mark.parametrize("shapes", [((5, 5, 5), (5, 5, 4)), ((5, 5, 5, 2), (5, 5, 5, 2)), ((5, 5), (5, 5))])
def test_shapes_that_do_not_belong_together_are_refused(tmp_path, shapes):
    image, labels = np.zeros(shapes[0]), np.zeros(shapes[1], np.uint8)
    with pytest.raises(InputError, match="image and labels of one 2D or 3D shape, and a spacing for each axis"):
        qc_picture(image, labels, TWINS, tmp_path / "qc.png", spacing_mm=(1, 1, 1))
    assert not list(tmp_path.iterdir())
