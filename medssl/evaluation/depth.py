"""How right a depth map is, after a scaling that is declared, and what any method must beat.

Errors and thresholds of Eigen, Puhrsch, Fergus, "Depth Map Prediction from a Single Image using a Multi-Scale Deep
Network", NeurIPS 2014, https://arxiv.org/abs/1406.2283; the median scaling of Zhou et al., CVPR 2017,
https://arxiv.org/abs/1704.07813; the spread of its ratios as in Godard et al., ICCV 2019,
https://arxiv.org/abs/1806.01260; scale and shift as in Ranftl et al., TPAMI 2020, https://arxiv.org/abs/1907.01341.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

from medssl.errors import InputError
from medssl.evaluation.tables import subject_means

Floats = NDArray[np.float64]
Scaling = Literal["none", "median", "scale_and_shift"]

DEPTH_SCORES = {
    "abs_rel": "lower",
    "sq_rel": "lower",
    "rmse": "lower",
    "rmse_log": "lower",
    "delta_1": "higher",
    "delta_2": "higher",
    "delta_3": "higher",
}
"""The scores of the table, and whether a better one is higher or lower."""

DEPTH_COLUMNS = (
    "subject",
    "scan",
    "structure",
    *DEPTH_SCORES,
    "n",
    "missing",
    "scale_ratio",
    "scale",
    "shift",
    "scaling",
    "missed",
)

_FITTED_NUMBERS = {"none": 0, "median": 1, "scale_and_shift": 2}
_RATIO = 1.25


@dataclass(frozen=True)
class DepthRules:
    """How a prediction is brought to the truth's scale, and which pixels count; belongs beside every number.

    Attributes:
        scaling: ``"none"`` for a metric prediction; ``"median"``, the ratio of the medians of each image;
            ``"scale_and_shift"``, least squares in each image.
        fitted_in: Where scale and shift are fitted: ``"depth"`` or ``"disparity"``, its inverse.
        nearest: Truth up to this is not scored, and a smaller aligned prediction counts as this; in the truth's unit.
        cap: Truth beyond this is not scored, and a larger aligned prediction counts as this; ``None`` for no limit.
    """

    scaling: Scaling = "median"
    fitted_in: Literal["depth", "disparity"] = "disparity"
    nearest: float = 0.0
    cap: float | None = None

    def __post_init__(self) -> None:
        if self.scaling not in _FITTED_NUMBERS or self.fitted_in not in ("depth", "disparity"):
            raise InputError(
                f"scaling '{self.scaling}' in '{self.fitted_in}' is unknown; choose {', '.join(_FITTED_NUMBERS)}, in "
                "depth or disparity."
            )
        if self.nearest < 0 or (self.cap is not None and self.cap <= self.nearest):
            raise InputError(f"Depths are scored from {self.nearest} to {self.cap}; give 0 <= nearest < cap.")

    @property
    def named(self) -> str:
        """The scaling in words."""
        return f"scale_and_shift in {self.fitted_in}" if self.scaling == "scale_and_shift" else self.scaling

    def scored(self, truth: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
        """Where the truth is known, within the limits and in the mask; same shape."""
        known: NDArray[np.bool_] = np.isfinite(truth) & (truth > self.nearest)
        if self.cap is not None:
            known &= truth <= self.cap
        return known if mask is None else known & mask


@dataclass(frozen=True)
class DepthFit:
    """What brings one image's prediction to the truth's scale: ``scale * depth + shift``, or so in disparity.

    NaN where there were not more pixels than numbers to fit.
    """

    scale: float
    shift: float
    rules: DepthRules

    def apply(self, prediction: NDArray[Any]) -> Floats:
        """Scale a depth map and clip it to the rules' limits.

        Where the prediction is not a positive number, or does not become one that the limits could hold, it is NaN.
        """
        depth = np.where(_usable(prediction), prediction, np.nan).astype(np.float64)
        if self.rules.scaling == "scale_and_shift" and self.rules.fitted_in == "disparity":
            disparity = self.scale / depth + self.shift
            far = np.where(np.isnan(disparity), np.nan, np.inf)  # no disparity is infinitely far, for the cap to clip
            depth = np.divide(1, disparity, out=far, where=disparity > 0)
        else:
            depth = self.scale * depth + self.shift
        depth = np.clip(depth, self.rules.nearest, self.rules.cap)
        return np.where(_usable(depth), depth, np.nan)


def fit_depth(
    prediction: NDArray[Any],
    truth: NDArray[Any],
    rules: DepthRules = DepthRules(),
    mask: NDArray[np.bool_] | None = None,
) -> DepthFit:
    """Find what brings a prediction to the truth's scale, over the pixels that are scored and have a prediction.

    Args:
        prediction: Depth, of any shape.
        truth: Same shape; NaN, 0 or less where it is not known.
        rules: See there.
        mask: Same shape; where to look.

    Raises:
        InputError: The shapes differ.
    """
    _require_one_shape(prediction, truth, mask)
    common = rules.scored(truth, mask) & _usable(prediction)
    p, t = prediction[common].astype(np.float64), truth[common].astype(np.float64)
    if len(p) <= _FITTED_NUMBERS[rules.scaling]:
        return DepthFit(np.nan, np.nan, rules)
    if rules.scaling == "scale_and_shift":
        pair = (1 / p, 1 / t) if rules.fitted_in == "disparity" else (p, t)
        return DepthFit(*_line(*pair), rules)
    return DepthFit(_ratio(p, t) if rules.scaling == "median" else 1.0, 0.0, rules)


def score_depth(
    prediction: NDArray[Any],
    truth: NDArray[Any],
    rules: DepthRules = DepthRules(),
    *,
    scan: str,
    subject: str | None = None,
    mask: NDArray[np.bool_] | None = None,
) -> pd.DataFrame:
    """Score the depth of one image, or at its sparse points (``sample_at`` gives the prediction there).

    Args:
        prediction: Depth (H, W) or (points,); not a positive number where there is none.
        truth: Same shape; NaN, 0 or less where it is not known.
        rules: See there.
        scan: Name of the image.
        subject: Whose it is; without it the image is its own subject.
        mask: Same shape; where to look.

    Returns:
        A table of one row with ``DEPTH_COLUMNS``: the scores; ``n`` pixels whose truth is scored; ``missing``, those of
        them without a prediction, which fail every delta and are in no error; ``scale_ratio``, the truth's median over
        the prediction's, whatever the scaling; the ``scale`` and ``shift`` that were applied; ``missed``, not one pixel
        has an error. Every score is NaN where ``n`` is not more than the numbers that the scaling fits. RMSE and Sq
        Rel are in the truth's unit, RMSE log is of natural logarithms. ``structure`` is "depth": the table is one that
        ``medssl.evaluation.statistics.compare`` takes.

    Raises:
        InputError: The shapes differ.
    """
    fit = fit_depth(prediction, truth, rules, mask)
    known = rules.scored(truth, mask)
    raw, t = prediction[known], truth[known].astype(np.float64)
    p = fit.apply(raw)
    given = np.isfinite(p)
    scores = _errors(p[given], t[given])
    if len(t) > _FITTED_NUMBERS[rules.scaling]:
        ratio = np.maximum(p[given] / t[given], t[given] / p[given])
        scores |= {f"delta_{k}": float((ratio < _RATIO**k).sum() / len(t)) for k in (1, 2, 3)}
    usable = _usable(raw)
    row = {"subject": subject or scan, "scan": scan, "structure": "depth", **scores}
    row |= {"n": len(t), "missing": len(t) - int(given.sum()), "scale_ratio": _ratio(raw[usable], t[usable])}
    row |= {"scale": fit.scale, "shift": fit.shift, "scaling": rules.named, "missed": not given.any()}
    return pd.DataFrame([row], columns=list(DEPTH_COLUMNS))


def depth_summary(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Summarise methods: what ``summarise`` says, the scaling, and how steady each method's scale is.

    Returns:
        ``summarise``'s table with ``scaling``; ``scale_ratio_median`` over images; ``scale_ratio_spread``, the standard
        deviation of the ratios over their median, 0 for a prediction whose scale never drifts.
    """
    rows = summarise(tables, DEPTH_SCORES).set_index("method")
    ratios = pd.DataFrame({method: _scale_of(table) for method, table in tables.items()}).T
    return rows.join(ratios).rename_axis("method").reset_index()


def summarise(tables: Mapping[str, pd.DataFrame], scores: Iterable[str]) -> pd.DataFrame:
    """Summarise long tables of scores of several methods, a row per method and structure.

    Args:
        tables: By method, with ``subject``, ``scan``, ``structure``, ``n``, ``missing``, ``missed`` and the scores.
        scores: Their names.

    Returns:
        ``method``; ``structure``; ``n`` images with scores and ``n_missed`` without, of ``subjects`` subjects;
        ``missing``, the share of pixels that lack a prediction; ``<score>_mean`` and ``<score>_sd`` over subjects.
    """
    scores = list(scores)
    rows = []
    for method, table in tables.items():
        for structure, part in table.groupby("structure", sort=False):
            missed = int(part["missed"].sum())
            row = {"method": method, "structure": structure, "n": len(part) - missed, "n_missed": missed}
            total = part["n"].sum()
            row |= {"subjects": part["subject"].nunique()}
            row |= {"missing": part["missing"].sum() / total if total else np.nan}
            for score in scores:
                means = subject_means(part, score)[structure]
                row |= {f"{score}_mean": means.mean(), f"{score}_sd": means.std()}
            rows.append(row)
    return pd.DataFrame(rows)


def sample_at(depth: NDArray[Any], pixels: NDArray[Any]) -> Floats:
    """Read a depth map at sparse points, linearly between pixels.

    Args:
        depth: (H, W).
        pixels: (N, 2), x and y; the centre of the first pixel is at (0, 0).

    Returns:
        (N,), NaN outside the picture and beside unknown depth.
    """
    height, width = depth.shape
    x, y = np.asarray(pixels, dtype=np.float64).T
    values: Floats = map_coordinates(depth.astype(np.float64), [y, x], order=1, mode="nearest")
    inside = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    return np.where(inside, values, np.nan)


def constant_depth(training_truths: Iterable[NDArray[Any]], shape: tuple[int, ...]) -> Floats:
    """The baseline that knows no image: the median of all known training depths, everywhere.

    Args:
        training_truths: Depths of any shapes; NaN, 0 or less where it is not known.
        shape: Of the depth map wanted.

    Raises:
        InputError: No training depth is known.
    """
    known = [truth[_usable(truth)] for truth in training_truths]
    if not sum(map(len, known)):
        raise InputError(f"The constant-depth baseline needs known training depths; {len(known)} images hold none.")
    return np.full(shape, np.median(np.concatenate(known)), dtype=np.float64)


def nearest_point_depth(pixels: NDArray[Any], depths: NDArray[Any], shape: tuple[int, int]) -> Floats:
    """The baseline that looks at no image: each pixel has the depth of the nearest known point.

    Args:
        pixels: (N, 2), x and y of the points.
        depths: (N,), of the points.
        shape: Height and width of the depth map wanted.

    Raises:
        InputError: There is no point with a depth.
    """
    known = _usable(np.asarray(depths)) & np.isfinite(pixels).all(axis=1)
    if not known.any():
        raise InputError(f"Interpolation needs a point of known depth; none of {len(known)} points has one.")
    rows, columns = np.indices(shape)
    _, nearest = cKDTree(pixels[known]).query(np.stack([columns.ravel(), rows.ravel()], axis=1))
    interpolated: Floats = np.asarray(depths, dtype=np.float64)[known][nearest].reshape(shape)
    return interpolated


def _usable(depth: NDArray[Any]) -> NDArray[np.bool_]:
    usable: NDArray[np.bool_] = np.isfinite(depth) & (depth > 0)
    return usable


def _ratio(p: NDArray[Any], t: Floats) -> float:
    return float(np.median(t) / np.median(p.astype(np.float64))) if len(p) else np.nan


def _line(x: Floats, y: Floats) -> tuple[float, float]:
    """Slope and offset of the least-squares line; a constant ``x`` gets slope 0 and the mean."""
    off = x - x.mean()
    slope = float(off @ (y - y.mean()) / (off @ off)) if np.ptp(x) > 0 else 0.0
    return slope, float(y.mean() - slope * x.mean())


def _errors(p: Floats, t: Floats) -> dict[str, float]:
    if not len(p):
        return {}  # NaN in the table
    difference, logs = p - t, np.log(p) - np.log(t)
    return {
        "abs_rel": float((np.abs(difference) / t).mean()),
        "sq_rel": float((difference**2 / t).mean()),
        "rmse": float(np.sqrt((difference**2).mean())),
        "rmse_log": float(np.sqrt((logs**2).mean())),
    }


def _scale_of(table: pd.DataFrame) -> pd.Series:
    ratios = table["scale_ratio"]
    median = ratios.median()
    scaling = ", ".join(table["scaling"].unique())
    return pd.Series(
        {"scaling": scaling, "scale_ratio_median": median, "scale_ratio_spread": ratios.std(ddof=0) / median}
    )


def _require_one_shape(prediction: NDArray[Any], truth: NDArray[Any], mask: NDArray[np.bool_] | None) -> None:
    shapes = [array.shape for array in (prediction, truth, mask) if array is not None]
    if len(set(shapes)) > 1:
        raise InputError(
            f"Depth is scored where it was measured: prediction, truth (and mask) have the shapes "
            f"{', '.join(map(str, shapes))}; resize the prediction to the truth, or read it at the points (sample_at)."
        )
