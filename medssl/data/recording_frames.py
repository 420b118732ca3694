"""Single frames of recordings as images, for methods that learn from images; a recording is never cut in two.

A frame is a scan of its recording's subject, so whatever is split by subject keeps the frames of a recording together.
"""

from collections.abc import Iterable
from copy import copy

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medssl.data.preparation import Preparation
from medssl.data.prepared import Crop, Description, PreparedDataset
from medssl.data.prepared_recordings import PreparedRecordings
from medssl.errors import InputError


class RecordingFrames(PreparedDataset):
    """The usable frames of prepared recordings as images of three channels, (3, X, Y), 0 to 1, as pictures are.

    Frames that are black, overexposed or damaged are left out; preparing the recordings has named them.

    Args:
        recordings: The prepared recordings.

    Raises:
        InputError: No frame can be used.
    """

    def __init__(self, recordings: PreparedRecordings) -> None:
        self.root, self.recordings = recordings.root, recordings
        colours = Preparation(intensity="rgb", spacing_mm=None)
        self.description = Description(colours, None, None, spatial_dims=2, channels=recordings.channels, classes=None)
        rows = [row for i in range(len(recordings)) for row in _rows(recordings, i)]
        if not rows:
            raise InputError(
                f"{self.root}: none of the frames of its {len(recordings)} recordings can be used, as they are black, "
                "overexposed or damaged. Give other recordings."
            )
        self.index = pd.DataFrame(rows)

    def take(self, scans: Iterable[int]) -> "RecordingFrames":
        """A view of some frames, by their places in the index, in the order given."""
        view = copy(self)
        view.index = self.index.iloc[list(scans)].reset_index(drop=True)
        vars(view).pop("fingerprint", None)  # it is of the frames that there were
        return view

    def image(self, i: int, crop: Crop | None = None) -> NDArray[np.float32]:
        """Frame ``i`` (3, X, Y), or the part of it inside ``crop`` (one slice per spatial axis)."""
        frame = self.recordings.frame(int(self.index["recording"].iat[i]), int(self.index["frame"].iat[i]))
        where = () if crop is None else (slice(None), *self._within(i, crop))
        return frame.swapaxes(1, 2)[where].astype(np.float32) / np.float32(255)


def _rows(recordings: PreparedRecordings, i: int) -> list[dict[str, object]]:
    """What the index says of the usable frames of a recording."""
    height, width = recordings.preparation.size
    key = recordings.folder(i).name
    usable = recordings.geometry(i).usable
    return [
        {
            "scan": f"{recordings.names[i]} frame {t:06d}",
            "subject": recordings.subjects[i],
            "key": f"{key}-{t}",
            "source_hash": f"{key}-{t}",
            "content_hash": f"{key}-{t}",
            "shape": [width, height],
            "affine": np.eye(4).ravel().tolist(),
            "class_voxels": [],
            "category": -1,
            "recording": i,
            "frame": t,
        }
        for t in np.flatnonzero(usable).tolist()
    ]
