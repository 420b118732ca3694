"""Recordings written straight to a store, for tests of what reads them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medssl.data import recording_store as store
from medssl.data.prepared_recordings import PreparedRecordings, RecordingPreparation
from medssl.data.recording_store import FrameWriter, Geometry, Observations
from medssl.files import write_json

HEIGHT, WIDTH = 64, 96


def observations(frames: int) -> Observations:
    """Point p was seen by every frame, at pixel (p, 3), p + 1 away."""
    point, frame = np.meshgrid(np.arange(20), np.arange(frames))
    point, frame = point.ravel(), frame.ravel()
    pixel = np.stack([point, np.full_like(point, 3)], 1).astype(float)
    return Observations(frame, point, pixel, point + 1.0, np.full(len(point), frames))


def write_recordings(
    root: Path, frames: tuple[int, ...] = (6,), right: bool = False, **known: Any
) -> PreparedRecordings:
    """Write recordings of noise; ``known`` changes what is known of each one's cameras."""
    rows = []
    for i, count in enumerate(frames):
        folder = root / "recordings" / f"key{i}"
        folder.mkdir(parents=True)
        draw = np.random.default_rng(i)
        for kind in ("frames", "right") if right else ("frames",):
            writer = FrameWriter(folder, kind)
            for _ in range(count):
                writer.add(draw.integers(0, 255, (3, HEIGHT, WIDTH), dtype=np.uint8))
            writer.flush()
        for kind in ("valid", "right_valid") if right else ("valid",):
            writer = FrameWriter(folder, kind)
            for _ in range(count):
                writer.add(np.ones((HEIGHT, WIDTH), dtype=np.uint8))
            writer.flush()
        geometry: dict[str, Any] = {
            "times": np.arange(count) / 25,
            "motion": np.full(count, 0.02),
            "scene": np.zeros(count, dtype=np.int64),
            "usable": np.ones(count, dtype=bool),
            "intrinsics": np.array([[60.0, 0, 47], [0, 60, 31], [0, 0, 1]]),
        }
        store.write_geometry(folder, Geometry(**{**geometry, **known}))
        write_json(folder / "meta.json", {"frames": count, "unit": "mm", "notes": []})
        rows.append({"name": f"video{i}", "subject": f"p{i}", "key": f"key{i}", "frames": count, "unit": "mm"})
    preparation = RecordingPreparation((HEIGHT, WIDTH))
    write_json(root / "recordings.json", {"format": store.FORMAT, "preparation": preparation.to_dict()})
    pd.DataFrame(rows).to_parquet(root / "recordings.parquet", index=False)
    return PreparedRecordings(root)
