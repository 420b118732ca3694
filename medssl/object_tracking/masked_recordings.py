"""Recordings with masks of some of their frames, in folders: to judge by what is followed through them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from medssl.data.sequence import Frames
from medssl.data.video import open_frames
from medssl.errors import InputError
from medssl.files import content_hash
from medssl.object_tracking.given import Given, read_given
from medssl.object_tracking.truth import Truth, read_truth

_PICTURES = ("frames", "images", "JPEGImages")
_VIDEO = "video.mp4"
_MASKS = ("masks", "Annotations")
_DEEPEST = 4  # folders below the source that are looked into
_LAYOUT = (
    "a folder for each recording with frames/ (or images/, or video.mp4) and masks/, of which one belongs to the first "
    "frame; or JPEGImages/.../NAME and Annotations/.../NAME, as DAVIS has them"
)


@dataclass(frozen=True)
class MaskedRecording:
    """A recording, and the masks of some of its frames.

    Attributes:
        name: Of the recording.
        video: What ``open_frames`` takes.
        masks: Folder of the masks, named as their frames.
    """

    name: str
    video: Path
    masks: Path

    def opened(self) -> tuple[Frames, Truth, int, Given]:
        """Open frames and masks; the first masked frame, and what its mask gives.

        Raises:
            InputError: One of them cannot be read, or they do not fit.
        """
        frames = open_frames(self.video)
        truth = read_truth(self.masks, frames)
        first = truth.frames[0]
        return frames, truth, first, read_given(truth.masks[first], frames.size, first, len(frames))

    def identity(self) -> str:
        """A hash of what its files hold."""
        return content_hash(self.video, self.masks)


def find_masked(root: Path) -> list[MaskedRecording]:
    """List the recordings with masks in a folder, in order of name.

    Raises:
        InputError: There are none, or two share a name.
    """
    found = sorted(_below(root, 0), key=lambda one: one.name) if root.is_dir() else []
    if not found:
        raise InputError(f"{root}: holds no recordings with masks; expected is {_LAYOUT}.")
    names = [one.name for one in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"{root}: two recordings are called '{twice}'; rename one of them.")
    return found


def _below(folder: Path, depth: int) -> Iterator[MaskedRecording]:
    masks = next((folder / name for name in _MASKS if (folder / name).is_dir()), None)
    pictures = next((folder / name for name in _PICTURES if (folder / name).is_dir()), None)
    if masks is not None and (pictures is not None or (folder / _VIDEO).is_file()):
        yield from _pairs(folder.name, pictures or folder / _VIDEO, masks)
    elif depth < _DEEPEST:
        for inside in sorted(folder.iterdir()):
            if inside.is_dir() and not inside.name.startswith("."):
                yield from _below(inside, depth + 1)


def _pairs(name: str, pictures: Path, masks: Path) -> Iterator[MaskedRecording]:
    """The recording of these folders, or those of their folders of the same names."""
    if any(path.suffix == ".png" for path in masks.iterdir()):
        yield MaskedRecording(name, pictures, masks)
        return
    for inside in sorted(masks.iterdir()):
        if inside.is_dir() and (pictures / inside.name).is_dir():
            yield from _pairs(inside.name, pictures / inside.name, inside)
