"""Which recordings a folder or file holds, whatever its layout: one list of sequences, with their cameras."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from medssl.data import endoscopy_sequences, public_sequences
from medssl.data.cine import CineFrames
from medssl.data.cohort import Refused, or_refused
from medssl.data.colmap import colmap_sequence, is_colmap_folder
from medssl.data.exact_sequence import exact_sequence, is_exact_folder, is_masked_folder, masked_sequence
from medssl.data.formats import PICTURE_SUFFIXES
from medssl.data.sequence import VideoSequence
from medssl.data.sfm import is_sfm_folder, sfm_sequence
from medssl.errors import InputError

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".m4v", ".mpg", ".mpeg", ".webm", ".wmv", ".dcm")
LAYOUTS = (
    """\
  - structure from motion: motion.yaml, structure.ply, visible_view_indexes, camera_intrinsics_per_view,
    view_indexes_per_point, frames 00000001.jpg and so on
  - COLMAP: cameras, images and points3D as .bin or .txt, in the folder or in sparse/0, with images/ beside them
  - KITTI odometry: image_0 and image_1, or image_2 and image_3, calib.txt, poses.txt
  - Middlebury stereo: im0.png, im1.png, calib.txt; Hamlyn stereo: *_L_*, *_R_*, calib.*; rectified Hamlyn: image01 or
    color, intrinsics.txt
  - SCARED: endoscope_calibration.yaml; C3VD: *_color.png, pose.txt; EndoSLAM: Frames, Pixelwise Depths
  - a made-up endoscopy: frames, camera.json, poses.txt, with depth, flow, right as far as they are there
  - a made-up video of shapes or of what sounds: video.mp4 and masks, with flow where it is there
  - pairs with true flow: *.flo beside .ppm or .png pictures
  - a video ("""
    + ", ".join(VIDEO_SUFFIXES)
    + ") or a folder of at least two pictures of it (.png, .jpg)"
)
_DEEPEST = 6  # folders below the source that are looked into


class _Layout(NamedTuple):
    fits: Callable[[Path], bool]
    read: Callable[[Path], VideoSequence]


_KNOWN = (
    _Layout(is_exact_folder, exact_sequence),
    _Layout(is_masked_folder, masked_sequence),
    _Layout(is_sfm_folder, sfm_sequence),
    _Layout(is_colmap_folder, colmap_sequence),
    _Layout(public_sequences.is_kitti_folder, public_sequences.kitti_sequence),
    _Layout(public_sequences.is_middlebury_folder, public_sequences.middlebury_pair),
    _Layout(public_sequences.is_hamlyn_pair, public_sequences.hamlyn_pair),
    _Layout(endoscopy_sequences.is_scared_folder, endoscopy_sequences.scared_sequence),
    _Layout(endoscopy_sequences.is_c3vd_folder, endoscopy_sequences.c3vd_sequence),
    _Layout(endoscopy_sequences.is_endoslam_folder, endoscopy_sequences.endoslam_sequence),
    _Layout(endoscopy_sequences.is_hamlyn_folder, endoscopy_sequences.hamlyn_sequence),
)


class Found(NamedTuple):
    """The recordings of a source.

    Attributes:
        sequences: Those that can be used, in order of their paths.
        refused: Those that cannot, and why.
    """

    sequences: list[VideoSequence]
    refused: list[Refused]


def find_sequences(source: Path) -> list[VideoSequence]:
    """List the recordings of a source, see ``LAYOUTS``; one that cannot be used is logged with the reason and left out.

    Raises:
        InputError: There is no source, it holds nothing that is known, or nothing that can be used.
    """
    found = search(source)
    if not found.sequences:
        raise InputError("\n".join(one.reason for one in found.refused))
    for one in found.refused:
        logger.warning("Left out: %s", one.reason)
    return found.sequences


def are_recordings(source: Path, depth: int = 0) -> bool:
    """Say whether a source is surely of recordings: it is or holds a video, true flow, or a layout with cameras.

    A folder of pictures may as well be of scans, a DICOM file too.
    """
    if source.is_file():
        return source.suffix.lower() in (".flo", *VIDEO_SUFFIXES) and source.suffix.lower() != ".dcm"
    if not source.is_dir() or source.name.startswith(".") or depth > _DEEPEST:
        return False
    if any(layout.fits(source) for layout in _KNOWN):
        return True
    return any(are_recordings(path, depth + 1) for path in sorted(source.iterdir()))


def search(source: Path) -> Found:
    """Look for the recordings of a source; those that cannot be used are listed with the reason.

    A folder of a known layout is one recording and is not looked into further; other folders are.

    Raises:
        InputError: There is no source, or it holds nothing that is known.
    """
    if not source.exists():
        raise InputError(f"{source}: no such file or folder.")
    read = [(source, _video(source))] if source.is_file() else list(_in_folder(source, 0))
    if not read:
        raise InputError(f"{source}: holds no recordings. Known are:\n{LAYOUTS}")
    used = [(path, one) for path, one in read if isinstance(one, VideoSequence)]
    return Found(_with_own_names(source, used), [one for _, one in read if isinstance(one, Refused)])


def _in_folder(folder: Path, depth: int) -> Iterator[tuple[Path, VideoSequence | Refused]]:
    """The recordings at and under a folder, each with its path."""
    for layout in _KNOWN:
        if layout.fits(folder):
            yield folder, or_refused(str(folder), folder.name, partial(layout.read, folder))
            return
    inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    files = [path for path in inside if path.is_file()]
    if any(path.suffix == ".flo" for path in files):
        pairs = or_refused(str(folder), folder.name, partial(public_sequences.flow_pairs, folder))
        yield from [(folder, pairs)] if isinstance(pairs, Refused) else ((folder, pair) for pair in pairs)
        return
    yield from ((path, _video(path)) for path in files if path.suffix.lower() in VIDEO_SUFFIXES)
    if sum(path.suffix.lower() in PICTURE_SUFFIXES for path in files) >= 2:
        yield folder, _video(folder)
    if depth < _DEEPEST:
        for path in inside:
            if path.is_dir() and not path.is_symlink():
                yield from _in_folder(path, depth + 1)


def _video(path: Path) -> VideoSequence | Refused:
    """A video or a folder of frames, without calibration."""
    from medssl.data.video import open_frames

    def read() -> VideoSequence:
        frames = open_frames(path)
        _ = frames.size  # a folder of stills, of several sizes, is no video
        # A cine's file may be named after the patient; its frames know a name that is not.
        name = Path(frames.name).stem if isinstance(frames, CineFrames) else path.stem if path.is_file() else path.name
        return VideoSequence(name=name, subject=name, frames=frames)

    return or_refused(str(path), path.stem, read)


def _with_own_names(source: Path, read: list[tuple[Path, VideoSequence]]) -> list[VideoSequence]:
    """Where names are shared, put the folders in front that tell the recordings apart."""
    taken = Counter(one.name for _, one in read)
    named = []
    for path, one in read:
        folders = path.parent.relative_to(source).parts if path != source else ()
        name = "_".join((*folders, one.name)) if taken[one.name] > 1 else one.name
        named.append(replace(one, name=name, subject=name if one.subject == one.name else one.subject))
    return named
