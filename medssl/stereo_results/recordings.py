"""Which recordings are stereo, what a method needs to be told of their rig, and what becomes of whole recordings."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medssl.data.prepared_recordings import PreparedRecordings
from medssl.data.sequence import VideoSequence
from medssl.data.stereo import require_stereo
from medssl.depth_results.run import DepthOptions, depth_of_recording
from medssl.errors import InputError
from medssl.evaluation.disparity import rig_of
from medssl.files import value_hash
from medssl.stages import continued_run, is_done
from medssl.tracking import RunLike, Tracker, hashed
from medssl.video_inference import DepthInference
from medssl.video_method import DepthMethod

logger = logging.getLogger(__name__)

# Disparities that monodepth2 looks for, shares of the width. Its first guess is half of the largest, and matches must
# be found from there: from 15 % of the width they are not.
_LARGEST_SHARE, _SMALLEST_SHARE = 0.12, 0.002


def with_two_cameras(sequences: Sequence[VideoSequence]) -> list[VideoSequence]:
    """Keep the stereo recordings; the others are logged and left out.

    Raises:
        InputError: There is none.
    """
    stereo = [one for one in sequences if one.stereo is not None]
    if not stereo:
        require_stereo(sequences[0])
    for one in sequences:
        if one.stereo is None:
            logger.warning("Left out: %s: has one camera.", one.name)
    return stereo


def arguments_for(
    method: str, given: Mapping[str, Any], data: PreparedRecordings, largest_share: float
) -> dict[str, Any]:
    """A method's arguments with what it must be told of stereo: where it compares, and from where to where it looks.

    Args:
        method: ``stereo_depth`` or ``monodepth2``.
        given: The user's, which stay.
        data: Whose rigs tell the depths of the largest and the smallest disparity.
        largest_share: Largest disparity, as a share of the width.

    Raises:
        InputError: The method learns no depth from stereo, or a recording has one camera.
    """
    if method == "stereo_depth":
        return {"max_disparity": largest_share, **given}
    if method != "monodepth2":
        raise InputError(f"'{method}' learns no depth from stereo; choose of stereo_depth and monodepth2.")
    rigs = [rig_of(data.geometry(i), name) for i, name in enumerate(data.names)]
    width = data.preparation.size[1]
    scale = [rig.focal_px * rig.baseline for rig in rigs]
    largest, smallest = min(largest_share, _LARGEST_SHARE) * width, _SMALLEST_SHARE * width
    nearest = min(s / (largest + max(rig.apart, 0)) for s, rig in zip(scale, rigs, strict=True))
    farthest = max(s / (smallest + max(rig.apart, 0)) for s, rig in zip(scale, rigs, strict=True))
    return {"sources": ["stereo"], "min_depth": nearest, "max_depth": farthest, **given}


def whole_recordings(
    methods: Mapping[str, DepthMethod],
    made_of: Mapping[str, str],
    data: PreparedRecordings,
    out: Path,
    options: DepthOptions,
    tracker: Tracker,
    book: Path,
    parent: RunLike,
) -> list[Path]:
    """Make depth maps, videos and a surface of each recording of several frames, in runs of their own; their pages.

    Args:
        methods: By name.
        made_of: For each method, what tells it from any other.
        data: The recordings.
        out: Holds a folder for each method and recording.
        options: What is made.
        tracker: Where the runs are.
        book: Of the runs, see ``continued_run``.
        parent: The run that they are a part of.
    """
    pages = []
    for name, method in methods.items():
        for i, recording in enumerate(data.names):
            if data.frames(i) < 2:
                continue
            place = out / name / recording
            identity = value_hash([made_of[name], asdict(options), str(data.index["key"].iat[i])])
            pages.append(place / "report.html")
            if is_done(place, identity):
                continue
            try:
                with continued_run(tracker, book, f"{name}, {hashed(recording)}", parent) as run:
                    depth_of_recording(DepthInference(method), data, i, place, options, run, identity)
            except InputError as error:
                logger.warning("No results of the whole recording: %s", error)
                pages.pop()
    return pages
