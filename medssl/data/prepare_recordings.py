"""Recordings become prepared ones: undistorted, rectified, at one size, with what is valid; refused ones are listed.

Each recording is kept under a key made from the bytes of its files, what is known of its cameras, the preparation and
the format. So a second run finds everything done, and a run that was stopped goes on where it was.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from medssl.data import recording_store as store
from medssl.data.camera import Camera, project
from medssl.data.cohort import Refused, each, or_refused
from medssl.data.endoscope_mask import draw_mask_check, find_mask, highlights
from medssl.data.footage import Footage, inspect
from medssl.data.poses import inverted
from medssl.data.prepare import write_refused
from medssl.data.prepared_recordings import PreparedRecordings, RecordingPreparation
from medssl.data.recording_store import FrameWriter, Geometry, Observations
from medssl.data.sequence import SparsePoints, VideoSequence
from medssl.data.view import View, rectification
from medssl.errors import InputError
from medssl.files import content_hash, value_hash, write_aside, write_json

_MASK_FRAMES = 40  # that the field of view is found from
_CHECKED = 4  # pictures of the mask and the highlights for a person to look at


@dataclass(frozen=True)
class RecordingsReport:
    """What became of every recording.

    Attributes:
        out: The prepared recordings.
        made: Those that were prepared now.
        kept: Those that had been prepared before.
        refused: Those that cannot be used.
        notes: What to know of the others: cuts, dark frames, a still camera.
    """

    out: Path
    made: tuple[str, ...]
    kept: tuple[str, ...]
    refused: tuple[Refused, ...]
    notes: tuple[str, ...]

    def dataset(self) -> PreparedRecordings:
        """Open what was prepared."""
        return PreparedRecordings(self.out)

    def table(self) -> str:
        """The report as text."""
        lines = [
            f"{self.out}: {len(self.made) + len(self.kept)} recordings can be used",
            f"  prepared now     {len(self.made):5d}",
            f"  prepared before  {len(self.kept):5d}",
            f"  refused          {len(self.refused):5d}",
            *(f"  refused: {one.reason}" for one in self.refused),
            *(f"  note: {note}" for note in self.notes),
        ]
        return "\n".join(lines)


def prepare_recordings(
    sequences: Sequence[VideoSequence],
    out: Path,
    preparation: RecordingPreparation = RecordingPreparation(),
    jobs: int = 1,
    progress: bool | None = None,
) -> RecordingsReport:
    """Prepare every recording that can be; one that cannot never stops the others.

    Args:
        sequences: See ``medssl.data.recordings.find_sequences``.
        out: The prepared recordings; those that it holds already are not done again.
        preparation: How.
        jobs: Processes; -1 is one per core.
        progress: A bar; by default on a terminal only.

    Raises:
        InputError: No recording can be used, or the disk is full (what was done is kept).
    """
    sequences = in_order(sequences)
    folder = out / "recordings"
    keys = [_key(one, preparation) for one in sequences]
    todo = [(one, preparation, folder / key) for one, key in zip(sequences, keys, strict=True) if _new(folder / key)]
    failed = [one for one in each(_make, todo, "preparing", jobs, progress) if one is not None]
    refused_names = {one.scan for one in failed}
    rows, notes = [], []
    for one, key in zip(sequences, keys, strict=True):
        meta = store.read_meta(folder / key)
        if one.name in refused_names or meta is None:
            continue
        notes += [f"{one.name}: {note}" for note in meta["notes"]]
        rows.append({"name": one.name, "subject": one.subject, "key": key, **{k: meta[k] for k in ("frames", "unit")}})
    write_refused(out / "refused.csv", failed)
    if not rows:
        first = "".join(f"\n  {one.reason}" for one in failed[:5])
        raise InputError(f"{out}: none of the {len(sequences)} recordings can be used:{first}")
    write_json(out / "recordings.json", {"format": store.FORMAT, "preparation": preparation.to_dict()})
    with write_aside(out / "recordings.parquet") as aside:
        pd.DataFrame(rows).to_parquet(aside, index=False)
    for other in folder.iterdir():
        if other.name not in {row["key"] for row in rows}:
            rmtree(other, ignore_errors=True)
    made = {one.name for one, _, _ in todo} - refused_names
    usable = [row["name"] for row in rows]
    return RecordingsReport(
        out,
        tuple(name for name in usable if name in made),
        tuple(name for name in usable if name not in made),
        tuple(failed),
        tuple(notes),
    )


def in_order(sequences: Sequence[VideoSequence]) -> list[VideoSequence]:
    """Recordings in order of their names.

    Raises:
        InputError: Two have one name.
    """
    names = [one.name for one in sequences]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"Two recordings are called '{twice[0]}': rename one of them.")
    return sorted(sequences, key=lambda one: one.name)


def _new(folder: Path) -> bool:
    return store.read_meta(folder) is None


def _key(one: VideoSequence, preparation: RecordingPreparation) -> str:
    """Name a recording by its files' bytes, what is known of its cameras, and how it is prepared."""
    known = [one.camera, one.unit, None if one.stereo is None else (one.stereo.camera, one.stereo.to_left.tolist())]
    arrays = [one.poses, one.mask, *([] if one.points is None else [one.points.positions, one.points.seen])]
    numbers = [None if array is None else value_hash(np.nan_to_num(array, nan=-1e300).tolist()) for array in arrays]
    return value_hash([store.FORMAT, preparation.to_dict(), repr(known), numbers, content_hash(*_files(one))])


def _files(one: VideoSequence) -> tuple[Path, ...]:
    return (*one.frames.files, *(() if one.stereo is None else one.stereo.frames.files))


def _make(one: VideoSequence, preparation: RecordingPreparation, folder: Path) -> Refused | None:
    """Make one recording's folder; what is wrong with the recording is returned, with the disk is raised."""
    made = or_refused(one.name, one.subject, lambda: _write(one, preparation, folder))
    return made if isinstance(made, Refused) else None


def _write(one: VideoSequence, preparation: RecordingPreparation, folder: Path) -> bool:
    chosen = chosen_frames(one, preparation)
    left, right = sights(one, preparation, chosen)
    with write_aside(folder) as aside:
        aside.mkdir()
        footage = _write_frames(one, preparation, chosen, left, right, aside)
        geometry = _geometry(one, chosen, left.view, None if right is None else right.view, footage)
        _require_usable(one, geometry, footage)
        store.write_geometry(aside, geometry)
        meta = {"frames": len(chosen), "unit": one.unit, "notes": footage.messages()}
        write_json(aside / "meta.json", meta)
    return True


def _require_usable(one: VideoSequence, geometry: Geometry, footage: Footage) -> None:
    """Refuse a video of one camera that shows nothing; single pictures with a known disparity or flow may be bright."""
    if not geometry.usable.any() and one.stereo is None and one.truth.flow is None:
        raise InputError(
            f"{one.name}: none of its frames shows anything: {' '.join(footage.messages())} Give another part of the "
            "video, or copy it again."
        )


def chosen_frames(one: VideoSequence, preparation: RecordingPreparation) -> range:
    """Which frames of a recording are taken, ascending.

    Raises:
        InputError: There are fewer than two, of a video.
    """
    chosen = range(0, len(one.frames), preparation.every)[: preparation.longest]
    if len(chosen) < 2 and one.stereo is None and one.truth.flow is None:
        asked = "" if len(one.frames) < 2 else f", of {len(one.frames)}, by --recording.every and --recording.longest"
        raise InputError(f"{one.name}: has {len(chosen)} frame{asked}; at least 2 are needed: give a longer video.")
    return chosen


@dataclass(frozen=True, eq=False)
class Sight:
    """What one camera's pictures become.

    Attributes:
        view: How they are sampled.
        seen: Where they show the body, (H, W).
        without_highlights: Whether specular highlights are left out of what is valid.
    """

    view: View
    seen: NDArray[np.bool_]
    without_highlights: bool

    def prepared(self, frame: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """A recorded frame (h, w, 3) as the prepared one, (3, H, W), and where that is valid, (H, W)."""
        picture = self.view.picture(frame)
        if not self.without_highlights:
            return picture, self.seen
        return picture, self.seen & ~highlights(np.ascontiguousarray(picture.transpose(1, 2, 0)))


def sights(one: VideoSequence, preparation: RecordingPreparation, chosen: Sequence[int]) -> tuple[Sight, Sight | None]:
    """What the pictures of one or two cameras become; some of the chosen frames are read to find the field of view.

    Raises:
        InputError: There are two cameras without a calibration.
    """
    mask = one.mask if one.mask is not None or not preparation.mask else find_mask(_sample(one, chosen))
    left, right = _views(one, preparation, mask)
    whole = np.ones(one.frames.size, dtype=bool)
    shining = preparation.highlights if preparation.highlights is not None else mask is not None and not mask.all()
    first = Sight(left, left.mask(whole if mask is None else mask), shining)
    return first, None if right is None else Sight(right, right.mask(whole), shining)


def _sample(one: VideoSequence, chosen: Sequence[int]) -> NDArray[np.uint8]:
    """Read frames from all over a recording, (n, H, W, 3)."""
    places = np.unique(np.linspace(0, len(chosen) - 1, _MASK_FRAMES).astype(int))
    return np.stack(list(one.frames.read([chosen[place] for place in places])))


def _views(
    one: VideoSequence, preparation: RecordingPreparation, mask: NDArray[np.bool_] | None
) -> tuple[View, View | None]:
    """How the pictures of one or two cameras are sampled; black borders are cut off."""
    if one.stereo is None:
        return View(one.frames.size, preparation.size, one.camera, None if mask is None else _box(mask)), None
    if one.camera is None:
        raise InputError(f"{one.name}: has two cameras and no calibration; give it.")
    found = rectification(one.camera, one.stereo.camera, one.stereo.to_left)
    sizes = one.frames.size, preparation.size
    if found is None:
        return View(*sizes, one.camera), View(*sizes, one.stereo.camera)
    turn_left, turn_right, shared = found
    return (
        View(*sizes, one.camera, rectify=turn_left, pinhole=shared),
        View(*sizes, one.stereo.camera, rectify=turn_right, pinhole=shared),
    )


def _box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """The smallest box around a mask: top, left, height, width."""
    if not mask.any():
        return 0, 0, *mask.shape
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(rows[0]), int(columns[0]), int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)


def _write_frames(
    one: VideoSequence,
    preparation: RecordingPreparation,
    chosen: Sequence[int],
    left: Sight,
    right: Sight | None,
    folder: Path,
) -> Footage:
    """Write every kind of frame, and say what the footage is like."""
    _write_camera(one.frames.read(chosen), left, folder, ("frames", "valid"))
    if right is not None and one.stereo is not None:
        _write_camera(one.stereo.frames.read(chosen), right, folder, ("right", "right_valid"))
    _write_truth(one, chosen, left.view, folder)
    damaged = set(one.frames.damaged)
    places = tuple(place for place, number in enumerate(chosen) if number in damaged)
    return inspect(_Stored(folder, preparation.size, one.frames.times[list(chosen)], places))


@dataclass(frozen=True, eq=False)
class _Stored:
    """The prepared frames, as a reader of footage wants them."""

    folder: Path
    size: tuple[int, int]
    times: NDArray[np.float64]
    damaged: tuple[int, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(sorted(self.folder.glob("frames-*.b2nd")))

    def __len__(self) -> int:
        return len(self.times)

    def read(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        for index in indices:
            yield store.read_frame(self.folder, "frames", index).transpose(1, 2, 0)


def _write_camera(frames: Iterator[NDArray[np.uint8]], sight: Sight, folder: Path, kinds: tuple[str, str]) -> None:
    """Write the frames of one camera and what is valid of them."""
    pictures, masks = FrameWriter(folder, kinds[0]), FrameWriter(folder, kinds[1])
    for number, frame in enumerate(frames):
        prepared, valid = sight.prepared(frame)
        pictures.add(prepared)
        masks.add(valid.astype(np.uint8))
        if number < _CHECKED:
            shown = np.ascontiguousarray(prepared.transpose(1, 2, 0))
            Image.fromarray(draw_mask_check(shown, sight.seen, ~valid)).save(folder / f"{kinds[1]}_{number}.png")
    pictures.flush()
    masks.flush()


def _write_truth(one: VideoSequence, chosen: Sequence[int], view: View, folder: Path) -> None:
    """Write what a test recording knows exactly, in pixels of the prepared picture."""
    height, width = view.box[2:]
    shrink = np.array([view.target[1] / width, view.target[0] / height], dtype=np.float32).reshape(2, 1, 1)
    kinds = {
        "depth": (one.truth.depth, None),
        "disparity": (one.truth.disparity, shrink[:1]),
        "flow": (one.truth.flow, shrink),
    }
    for kind, (read, factor) in kinds.items():
        if read is None:
            continue
        writer = FrameWriter(folder, kind)
        for number in chosen[: len(chosen) - 1 if kind == "flow" else None]:
            values = view.nearest(read(number))
            writer.add((values if factor is None else values * factor).squeeze())
        writer.flush()


def _geometry(one: VideoSequence, chosen: Sequence[int], left: View, right: View | None, footage: Footage) -> Geometry:
    poses = None if one.poses is None else one.poses[list(chosen)]
    if poses is not None and left.turn is not None:
        poses = poses @ _rigid(left.turn.T)  # from the prepared camera's axes
    to_left = None
    if right is not None and one.stereo is not None:
        to_left = np.eye(4)
        to_left[0, 3] = np.linalg.norm(one.stereo.to_left[:3, 3])
    return Geometry(
        times=one.frames.times[list(chosen)],
        motion=np.nan_to_num(footage.motion),
        scene=np.cumsum(footage.cut),
        usable=~(footage.black | footage.overexposed | footage.damaged),
        intrinsics=None if left.camera is None else left.camera.matrix,
        poses=poses,
        right_intrinsics=None if right is None or right.camera is None else right.camera.matrix,
        right_to_left=to_left,
        observations=None if one.points is None else _observations(one, one.points, chosen, left.camera, poses),
    )


def _rigid(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    return matrix


def _observations(
    one: VideoSequence,
    points: SparsePoints,
    chosen: Sequence[int],
    camera: Camera | None,
    poses: NDArray[np.float64] | None,
) -> Observations | None:
    """Project the points into the prepared pictures that saw them."""
    if camera is None or poses is None:
        return None
    place = np.full(len(one.frames), -1)
    place[list(chosen)] = np.arange(len(chosen))
    views = np.bincount(points.seen[:, 0], minlength=len(points.positions))
    point, frame = points.seen[:, 0], place[points.seen[:, 1]]
    known = frame >= 0
    known[known] &= np.isfinite(poses[frame[known]]).all((1, 2))
    point, frame = point[known], frame[known]
    to_camera = inverted(poses[frame])  # (n, 4, 4)
    seen = np.einsum("nij,nj->ni", to_camera[:, :3, :3], points.positions[point]) + to_camera[:, :3, 3]
    return Observations(frame, point, project(camera, seen), seen[:, 2], views[point])
