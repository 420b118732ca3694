"""Recordings that teach nothing, by the commands a user types: one message says what is wrong and what to do.

What each reader and each method refuses is tested with them; here is what is printed.
"""

from pathlib import Path

import numpy as np
import pytest

from medssl.cli import main
from medssl.data.prepared_recordings import PreparedRecordings
from medssl.data.video_writing import write_video

av = pytest.importorskip("av", reason="videos need the extra 'video'")

FRAMES, HEIGHT, WIDTH = 8, 64, 96
INTRINSICS = ["--intrinsics", "80,80,47.5,31.5"]
SMALL = ["--recording.size", "[32,64]", "--jobs", "1"]
LEARN = ["--steps", "1", "--encoder_arguments", "{channels: [4, 8], norm: group}", *SMALL]


def scene(seed: int) -> np.ndarray:
    """A smooth texture, wider than what is filmed of it."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, : 2 * WIDTH]
    waves = [np.sin(x / a + phase) * np.cos(y / b) for a, b, phase in draw.uniform(3, 9, (3, 3))]
    return np.stack([130 + 70 * wave for wave in waves], axis=-1).clip(0, 255).astype(np.uint8)


def filmed(
    seed: int = 0, frames: int = FRAMES, step: int = 2, size: tuple[int, int] = (HEIGHT, WIDTH)
) -> list[np.ndarray]:
    """A camera that goes to the right by so many pixels a frame."""
    return [scene(seed)[: size[0], step * t : step * t + size[1]] for t in range(frames)]


BLACK, WHITE = np.zeros((HEIGHT, WIDTH, 3), np.uint8), np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
FILMS = {
    "good": filmed(),
    "still": filmed(step=0),
    "cut": [*filmed(0), *filmed(1)],
    "black": [BLACK] * FRAMES,
    "dazzled": [*filmed()[:3], BLACK, *filmed()[3:6], WHITE, *filmed()[6:]],
    "two": filmed(frames=2),
    "odd": filmed(size=(51, 67)),
}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for name, frames in FILMS.items():
        write_video(folder / f"{name}.mp4", frames, 25)
    (folder / "broken.mp4").write_bytes((folder / "good.mp4").read_bytes()[:900])
    return folder


def prepared(films: Path, name: str, out: Path, capsys: pytest.CaptureFixture[str]) -> tuple[PreparedRecordings, str]:
    assert main(["prepare", str(films / f"{name}.mp4"), "--out", str(out), *SMALL, *INTRINSICS]) == 0
    return PreparedRecordings(out), capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "method", "film", "words", "message"),
    [
        ("pretrain", "monodepth2", "still", INTRINSICS, "moves by 0.00% of its longer side (median). A camera that"),
        ("pretrain", "monodepth2", "two", INTRINSICS, "two: no clip can be taken as Neighbours"),
        ("pretrain", "monodepth2", "good", [], "good: has no intrinsics of the camera, which this method learns from"),
        ("pretrain", "stereo_depth", "good", INTRINSICS, "good: has no second camera, which this method learns from"),
        ("pretrain", "sfm_depth", "good", INTRINSICS, "good: has no poses of the camera, which this method learns"),
        ("prepare", "", "black", [], "black: none of its frames shows anything: 8 of 8 frames are black: 0 to 7"),
        ("prepare", "", "broken", [], "broken.mp4: "),
        (
            "prepare",
            "",
            "good",
            ["--intrinsics", "160,160,95.5,63.5,192,128"],
            "they have fx 80, fy 80, cx 47.5, cy 31.5",
        ),
        ("prepare", "", "good", ["--intrinsics", "160,160,95.7,63.5"], "(95.7, 63.5) lies outside the 96x64 picture"),
        ("prepare", "", "good", ["--packing", "side-by-side"], "a stereo recording needs --calibration"),
    ],
)
def test_what_teaches_nothing_is_refused_in_one_message(
    command: str, method: str, film: str, words: list[str], message: str, films: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    video, out = str(films / f"{film}.mp4"), ["--out", str(tmp_path / "out")]
    task = ["prepare", video, *SMALL] if command == "prepare" else ["pretrain", method, "--data", video, *LEARN]
    assert main([*task, *out, *words]) == 2
    told = capsys.readouterr().err
    assert message in told and "Traceback" not in told
    assert not (tmp_path / "out" / "mlflow.db").exists()  # no run was begun


def test_frames_that_show_nothing_and_what_a_cut_parts_are_named_and_not_compared(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, told = prepared(films, "dazzled", tmp_path / "dazzled", capsys)
    assert "1 of 10 frames are black: 3 (0.12 s)" in told and "1 of 10 frames are overexposed: 7 (0.28 s)" in told
    assert np.flatnonzero(~data.geometry(0).usable).tolist() == [3, 7]
    data, told = prepared(films, "cut", tmp_path / "cut", capsys)
    assert f"1 of {2 * FRAMES} frames begin another scene" in told
    assert data.geometry(0).scene.tolist() == [0] * FRAMES + [1] * FRAMES


def test_odd_sizes_and_a_portrait_that_its_file_turns_are_prepared_upright(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["prepare", str(films / "odd.mp4"), "--out", str(tmp_path / "odd"), *SMALL]
    assert main([*words, "--intrinsics", "80,80,33,25"]) == 0
    assert PreparedRecordings(tmp_path / "odd").frame(0, 0).shape == (3, 32, 64)
    with av.open(str(tmp_path / "turned.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        stream.set_display_rotation(90)
        for picture in FILMS["good"]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())
    words = ["prepare", str(tmp_path / "turned.mp4"), "--out", str(tmp_path / "turned"), *SMALL]
    capsys.readouterr()
    assert main([*words, "--intrinsics", f"80,80,47,31,{WIDTH},{HEIGHT}"]) == 2
    assert f"the frames are {HEIGHT}x{WIDTH}: turned upright, as their file asks" in capsys.readouterr().err
    assert main([*words, "--intrinsics", f"80,80,31,47,{HEIGHT},{WIDTH}"]) == 0


def test_a_bad_recording_stops_no_other_and_is_named(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    words = ["prepare", str(films), "--out", str(tmp_path / "all"), *SMALL]
    assert main([*words, "--intrinsics", f"80,80,47.5,31.5,{WIDTH},{HEIGHT}"]) == 0
    assert "refused: black: none of its frames shows anything" in capsys.readouterr().out
    assert "broken.mp4: " in caplog.text and "Left out: odd: The intrinsics" in caplog.text
    assert set(PreparedRecordings(tmp_path / "all").names) == {"good", "still", "cut", "dazzled", "two"}
