"""Masks of several frames: objects join where they are marked, are put right where they are marked again."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from coloured_squares import (
    FRAMES,
    HEIGHT,
    IDS,
    SIDE,
    WIDTH,
    ByColour,
    mask,
    picture,
    save_model,
    write_recording,
)
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from untold import require_untold

from medssl.cli import main
from medssl.data.video import open_frames
from medssl.errors import InputError
from medssl.evaluation.tracking import region_similarity
from medssl.files import read_json
from medssl.label_propagation import Memory, Propagation, propagate, with_marks
from medssl.methods import VIDEO
from medssl.networks import build_encoder
from medssl.object_tracking.followers import ByFlow, ByLikeness, Follower, Staying
from medssl.object_tracking.given import MOST_MASKS, Ids, Objects, read_marks
from medssl.object_tracking.mask_files import write_mask
from medssl.object_tracking.run import TrackOptions, track_recording
from medssl.object_tracking.seen import Seen
from medssl.object_tracking.truth import judge, read_truth
from medssl.tracking import NullRun
from medssl.video_method import FlowMethod

RED, GREEN = IDS
SMALL = Propagation(top=3, radius=3)


def only(thing: int, t: int) -> Ids:
    """The mask of frame ``t`` with one object alone."""
    return np.where(mask(t) == thing, mask(t), 0).astype(np.uint8)


def joining() -> Objects:
    """The red square of frame 0, and the green one of frame 2."""
    return Objects(only(RED, 0), IDS, {2: only(GREEN, 2)})


def likeness() -> ByLikeness:
    return ByLikeness(ByColour(build_encoder("unet", 3, 2, channels=[4, 8])), (HEIGHT, WIDTH), SMALL, batch_size=2)


class Resting(FlowMethod):
    """Nothing moves."""

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"loss": torch.zeros(())}

    def flow(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.zeros(len(a), 2, *a.shape[2:])


def shares(*size: int, seed: int = 0) -> Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed)).softmax(1)


def test_marks_replace_what_was_found_of_their_objects_and_cover_the_others() -> None:
    labels, marks = shares(1, 4, 2, 2), torch.zeros(1, 3, 2, 2)
    marks[0, 1, 0, 0], marks[0, 1, 0, 1] = 1.0, 0.25
    marked = torch.tensor([False, True, False]).view(1, 3, 1, 1)
    found = with_marks(labels, marks, marked)
    torch.testing.assert_close(found.sum(1), torch.ones(1, 2, 2))
    torch.testing.assert_close(found[:, 2], marks[:, 1])
    assert found[0, :, 0, 0].tolist() == [0, 0, 1, 0]
    torch.testing.assert_close(found[:, [1, 3], 0, 1], 0.75 * labels[:, [1, 3], 0, 1])
    torch.testing.assert_close(found[:, [1, 3], 1], labels[:, [1, 3], 1])
    torch.testing.assert_close(with_marks(labels, torch.zeros(1, 3, 2, 2), torch.zeros_like(marked)), labels)


def test_a_marked_frame_is_remembered_as_the_first_one_is() -> None:
    frames = [torch.nn.functional.normalize(shares(1, 4, 3, 3, seed=t) - 0.2, dim=1) for t in range(5)]
    labels, marks, how = shares(1, 2, 3, 3), torch.zeros(1, 1, 3, 3), Propagation(top=3, radius=2, recent=1)
    marks[0, 0, 1, 1] = 1
    memory = Memory(frames[0], labels, how)
    known = [labels, *(memory.carry(frame, marks if t == 1 else None).labels for t, frame in enumerate(frames[1:4], 1))]
    context = [0, 1, 3]
    seen, said = (torch.stack([values[t] for t in context], 1) for values in (frames, known))
    assert torch.equal(memory.carry(frames[4]).labels, propagate(frames[4], seen, said, how).labels)
    assert len(memory.given) == 2 and len(memory.recent) == 1


def test_what_is_marked_is_not_hidden_however_new_it_looks() -> None:
    ground, thing = (torch.eye(4)[n].view(1, 4, 1, 1).repeat(1, 1, 3, 3) for n in (0, 1))
    marks = torch.zeros(1, 1, 3, 3)
    marks[0, 0, 1, 1] = 1
    found = Memory(ground, torch.cat([torch.ones(1, 1, 3, 3), torch.zeros(1, 1, 3, 3)], 1)).carry(thing, marks)
    assert not found.hidden[0, 0, 1, 1] and found.similarity[0, 0, 1, 1] == 1 and found.hidden.sum() == 8


def test_an_object_of_a_later_mask_is_followed_though_earlier_frames_show_it_unmarked() -> None:
    followed = list(likeness().follow((Seen(t, picture(t), True) for t in range(FRAMES)), joining()))
    assert all(not (one.found == GREEN).any() for one in followed[:2])
    assert np.array_equal(followed[2].found == GREEN, mask(2) == GREEN)
    assert all(region_similarity(followed[5].found == thing, mask(5) == thing) > 0.9 for thing in IDS)


@pytest.mark.parametrize(
    "follower", [likeness, Staying, lambda: ByFlow(Resting(), (HEIGHT, WIDTH))], ids=["likeness", "staying", "flow"]
)
def test_an_object_that_is_marked_again_is_put_right_and_the_others_stay(follower: Callable[[], Follower]) -> None:
    moved = np.roll(only(RED, 1), -SIDE, axis=0)
    given = Objects(mask(0), IDS, {1: moved})
    _, then = follower().follow((Seen(t, picture(t), True) for t in range(2)), given)
    before = mask(1) if isinstance(follower(), ByLikeness) else mask(0)
    assert np.array_equal(then.found == RED, moved == RED)
    assert region_similarity(then.found == GREEN, before == GREEN) > 0.9


def test_a_marked_frame_that_cannot_be_decoded_is_refused() -> None:
    seen = (Seen(t, picture(t), t != 2) for t in range(FRAMES))
    with pytest.raises(InputError, match="Frame 2, whose labels are given, cannot be decoded"):
        list(likeness().follow(seen, joining()))


def test_before_the_first_mask_its_objects_alone_are_followed() -> None:
    given = Objects(only(RED, 2), IDS, {4: only(GREEN, 4)})
    assert [given.followed(t) for t in (0, 2, 3, 4, 5)] == [[RED], [RED], [RED], [RED, GREEN], [RED, GREEN]]
    assert [given.carried(t) for t in (3, 4, 5)] == [[RED], [RED], [RED, GREEN]]


def test_an_object_is_scored_where_it_is_followed_and_not_given(tmp_path: Path) -> None:
    recording = write_recording(tmp_path, masks=(0, 1, 2, 4))
    truth = read_truth(recording / "masks", open_frames(recording / "frames"))
    rows = judge(Staying().follow((Seen(t, picture(t), True) for t in range(FRAMES)), joining()), joining(), truth, 0)
    assert rows[["frame", "object"]].to_numpy().tolist() == [[1, RED], [2, RED], [4, RED], [4, GREEN]]


def test_a_truth_of_frames_that_are_not_followed_is_refused(tmp_path: Path) -> None:
    recording = write_recording(tmp_path, masks=(0, 2))
    truth = read_truth(recording / "masks", open_frames(recording / "frames"))
    seen = (Seen(t, picture(t), True) for t in range(3, FRAMES))
    with pytest.raises(InputError, match="nothing can be scored"):
        judge(Staying().follow(seen, Objects(mask(3), IDS)), Objects(mask(3), IDS), truth, 3)


def test_objects_that_are_lost_are_no_damaged_frame(tmp_path: Path) -> None:
    recording = write_recording(tmp_path / "squares", masks=())
    empty = np.full((HEIGHT, WIDTH, 3), (10, 10, 200), dtype=np.uint8)
    for t in range(1, FRAMES):
        Image.fromarray(empty).save(recording / "frames" / f"{t:08d}.png")
    out, frames = tmp_path / "out", open_frames(recording / "frames")
    summary = track_recording(
        likeness(), frames, Objects(mask(0), IDS), out, TrackOptions(overlay=False), NullRun(), "these"
    )
    assert read_json(out / "summary.json")["damaged_frames"] == []
    assert pd.read_csv(out / "confidence.csv").set_index("frame").loc[1:, "hidden"].all()
    assert "Object 1, 7 was lost at once" in " ".join(summary.sentences)


def written(folder: Path, masks: dict[str, Ids]) -> Path:
    for name, values in masks.items():
        write_mask(folder / name, values)
    return folder


def test_a_folder_of_masks_is_followed_and_nothing_tells_whose_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setitem(VIDEO, "by_colour", ByColour)
    recording = write_recording(tmp_path / "smith")
    first = written(tmp_path / "smith_masks", {"00000.png": only(RED, 0), "00002.png": only(GREEN, 2)})
    out, model = tmp_path / "out", save_model(tmp_path / "model", "by_colour")
    words = ["track", str(model), str(recording / "frames"), "--first", str(first), "--out", str(out)]
    more = ["--truth", str(recording / "masks"), "--propagation.radius", "3", "--propagation.top", "3"]
    assert main([*words, *more, "--device", "cpu", "--precision", "fp32", "--nifti", "true"]) == 0
    table = pd.read_csv(out / "confidence.csv")
    assert table.groupby("object")["frame"].min().to_dict() == {RED: 0, GREEN: 2} and not table["hidden"].any()
    scored = pd.read_csv(out / "metrics.csv").query("method == 'by_colour'")
    assert scored[["frame", "object"]].to_numpy().tolist() == [[2, RED], [4, RED], [4, GREEN]]
    assert (scored["j"] > 0.9).all()
    require_untold(out, "smith")


def test_masks_that_do_not_fit_the_video_or_each_other_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(VIDEO, "by_colour", ByColour)
    recording, model = write_recording(tmp_path / "squares"), save_model(tmp_path / "model", "by_colour")

    def told(name: str, masks: dict[str, Ids], *more: str) -> str:
        first = written(tmp_path / name, masks)
        words = ["track", str(model), str(recording / "frames"), "--first", str(first), "--out", str(tmp_path / "out")]
        assert main([*words, *more]) == 2
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    good = {"00001.png": mask(1)}
    narrow = told("narrow", good | {"00005.png": mask(5)[:, :-1]})
    assert "00005.png: is 95x64 pixels, the video's frames 96x64" in narrow and "Traceback" not in narrow
    assert "00003.png: shows no object" in told("empty", good | {"00003.png": 0 * mask(3)})
    assert "1.png: is of frame 1, as 00001.png is" in told("twice", good | {"1.png": mask(1)})
    assert "6.png: is of a frame that the video lacks; it has 6" in told("beyond", good | {"6.png": mask(1)})
    assert "the first of which is 1; --first_frame 3" in told("other", good, "--first_frame", "3")
    (tmp_path / "none").mkdir()
    assert "none: holds no masks" in told("none", {})
    with pytest.raises(InputError, match=f"holds {MOST_MASKS + 1} masks.*at most {MOST_MASKS}"):
        read_marks(
            written(tmp_path / "many", {f"{t:05d}.png": mask(0) for t in range(MOST_MASKS + 1)}), Long(MOST_MASKS + 1)
        )


@pytest.mark.real_data
def test_a_real_mask_that_is_a_pixel_too_narrow_is_named(real_data: Path) -> None:
    frames = open_frames(real_data / "tracking" / "judo" / "images" / "judo")
    with pytest.raises(InputError, match=r"00005.png: is 853x480 pixels, the video's frames 854x480"):
        read_marks(real_data / "tracking" / "judo" / "masks" / "judo", frames)


class Long:
    """Frames of which nothing but their number is asked."""

    size, files, damaged = (HEIGHT, WIDTH), (), ()

    def __init__(self, count: int) -> None:
        self.times = np.arange(count) / 25

    def __len__(self) -> int:
        return len(self.times)

    def read(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        raise AssertionError("masks are counted before a frame is read")
