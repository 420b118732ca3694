"""What scores of disparity and of flow share: tables with and without a truth, and how a picture is drawn anew."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from medssl.evaluation.tables import write_table
from medssl.evaluation.visibility import hidden
from medssl.files import write_aside
from medssl.geometry import warp
from medssl.photometric import photometric_error

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

_VISIBLE = 0.99  # share of a mask, read between its pixels, from which on a pixel counts


@dataclass(frozen=True)
class MatchingScores:
    """How methods and baselines did on pairs of pictures.

    Attributes:
        truth: Where the truth is known, rows of scores with a column ``method``; may be empty.
        indirect: Where it is not, a row per pair and method of what can be told without; may be empty.
        pictures: Of some pairs.
    """

    truth: pd.DataFrame
    indirect: pd.DataFrame
    pictures: Sequence[Path]

    @classmethod
    def joined(
        cls, truth: Sequence[pd.DataFrame], indirect: Sequence[pd.DataFrame], pictures: Sequence[Path]
    ) -> "MatchingScores":
        """Join the tables of pairs."""
        tables = [pd.concat(some, ignore_index=True) if some else pd.DataFrame() for some in (truth, indirect)]
        return cls(tables[0], tables[1], pictures)

    def save(self, folder: Path) -> None:
        """Write what is not empty of ``scores`` and ``indirect``, to look at (CSV) and to read back (Parquet)."""
        for name, table in (("scores", self.truth), ("indirect", self.indirect)):
            if len(table):
                write_table(folder / f"{name}.csv", table)
                with write_aside(folder / f"{name}.parquet") as aside:
                    table.to_parquet(aside, index=False)

    @classmethod
    def load(cls, folder: Path) -> "MatchingScores":
        """Read the tables back; pictures are those in ``folder/pictures``."""
        paths = (folder / "scores.parquet", folder / "indirect.parquet")
        tables = [pd.read_parquet(path) if path.is_file() else pd.DataFrame() for path in paths]
        return cls(tables[0], tables[1], sorted((folder / "pictures").glob("*.png")))


def redrawn_error(first: NDArray[np.uint8], second: NDArray[np.uint8], motion: NDArray[Any], valid: Mask) -> Floats:
    """Photometric error of the first picture as its motion draws it from the second one, (H, W), 0 to 1.

    Not a measure of truth: what hardly differs in brightness looks right wherever it is taken from, and a reflection
    never does.

    Args:
        first: (3, H, W).
        second: The same.
        motion: To the second picture, (H, W, 2), x and y, pixels; NaN where unknown.
        valid: Of the second picture, (H, W).

    Returns:
        See ``medssl.photometric.photometric_error``; NaN where no valid pixel is drawn.
    """
    known = np.isfinite(motion).all(axis=-1)
    there = np.where(known[..., None], motion, 0.0).transpose(2, 0, 1)
    a, b = (torch.from_numpy(picture).float()[None] / 255 for picture in (first, second))
    seen = torch.cat([b, torch.from_numpy(valid).float()[None, None]], dim=1)
    drawn = warp(seen, torch.from_numpy(there.copy()).float()[None])
    error = photometric_error(drawn[:, :3], a)[0, 0].double().numpy()
    return np.where(known & ~hidden(motion) & (drawn[0, 3].numpy() >= _VISIBLE), error, np.nan)


def common_mean(errors: Mapping[str, Floats], name: str, valid: Mask) -> float:
    """Mean of one method's errors (H, W) over the valid pixels where every method has one; NaN where none is left."""
    common = valid & np.isfinite(np.stack(list(errors.values()))).all(axis=0)
    return float(errors[name][common].mean()) if common.any() else np.nan
