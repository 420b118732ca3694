"""How optical flow of pairs and videos does, beside none and a variational method, with a truth or without one."""

from collections.abc import Set
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from medssl.data.prepared_recordings import PreparedRecordings
from medssl.errors import InputError
from medssl.evaluation.classical import variational_flow
from medssl.evaluation.clips import spread
from medssl.evaluation.flow import score_flow, zero_flow
from medssl.evaluation.matching import MatchingScores, common_mean, redrawn_error
from medssl.evaluation.visibility import hidden
from medssl.extras import require_module
from medssl.report.flow import flow_pair_pictures
from medssl.tracking import hashed
from medssl.video_method import FlowMethod

Floats = NDArray[np.float64]

METHOD = "optical_flow"
ZERO = "zero flow"
VARIATIONAL = "TV-L1"

_DRAWN = 2  # pairs of each recording
_MOST_DRAWN = 12  # recordings that are drawn
_NEARER = np.log(1.05)  # something must be nearer by 5 % to hide what is behind


def why_no_variational_flow() -> str:
    """Say what is missing for TV-L1; nothing where it can be run."""
    try:
        require_module("skimage.registration", "endoscopy")
    except InputError as error:
        return str(error)
    return ""


def judge_flow(
    method: FlowMethod, data: PreparedRecordings, learnt_from: Set[str], out: Path, *, pairs: int, variational: bool
) -> MatchingScores:
    """Judge a method on pairs of frames spread over each recording, and draw some.

    Args:
        method: In evaluation.
        data: The recordings.
        learnt_from: Subjects that the method was trained on; the others were held out.
        out: Folder of the pictures.
        pairs: Of each recording, at most.
        variational: Whether TV-L1 is run.

    Returns:
        Rows of ``score_flow`` with the columns ``method`` and ``learnt_from``; where no flow is known, the photometric
        ``redrawn_error`` over the pixels that every method draws, and the ``median_motion_px``.
    """
    known, unknown, pictures = [], [], []
    for i in range(len(data)):
        times = [t for t in spread(data.frames(i) - 1, pairs) if data.geometry(i).usable[t : t + 2].all()]
        drawn = {times[n] for n in spread(len(times), _DRAWN)} if i < _MOST_DRAWN else set()
        for t in times:
            truth = data.truth(i, t, "flow").transpose(1, 2, 0) if data.has(i, "flow") else None
            behind = None if truth is None else _hidden(truth, data, i, t)
            found = flows(method, data, i, t, variational)
            named = {"scan": f"{data.names[i]}, frame {t}", "subject": data.subjects[i]}
            if truth is not None:
                table = pd.concat(
                    [
                        score_flow(flow, truth, valid=data.valid(i, t), occluded=behind, **named).assign(method=name)
                        for name, flow in found.items()
                    ]
                )
                known.append(table.assign(learnt_from=data.subjects[i] in learnt_from))
            else:
                unknown.append(_indirect(found, data, i, t, named))
            if t in drawn:
                shown = {name: flow for name, flow in found.items() if name != ZERO}
                first, second = (data.frame(i, s).transpose(1, 2, 0) for s in (t, t + 1))
                stem = out / f"{hashed(data.names[i])}_{t:08d}"  # pictures are tracked
                pictures += flow_pair_pictures(
                    first, second, shown, stem, truth=truth, hidden=behind, title=f"{hashed(data.names[i])}, frame {t}"
                )
    return MatchingScores.joined(known, unknown, pictures)


def flows(method: FlowMethod, data: PreparedRecordings, i: int, t: int, variational: bool) -> dict[str, Floats]:
    """Flow (H, W, 2) from frame ``t`` to the next one, by the method and by what it is compared with."""
    first, second = data.frame(i, t), data.frame(i, t + 1)
    a, b = (torch.from_numpy(picture).float()[None] / 255 for picture in (first, second))
    with torch.no_grad():
        device = next(method.parameters()).device
        flow = method.flow(a.to(device), b.to(device))[0].double().cpu().numpy().transpose(1, 2, 0)
    found: dict[str, Floats] = {METHOD: flow}
    if variational:
        found[VARIATIONAL] = variational_flow(first, second)
    return found | {ZERO: zero_flow(flow)}


def _hidden(truth: NDArray[Any], data: PreparedRecordings, i: int, t: int) -> NDArray[np.bool_]:
    """What the next frame does not show: what leaves it, and, where depth is known, what lies behind nearer things."""
    if not data.has(i, "depth"):
        return hidden(truth)
    depth = data.truth(i, t, "depth").astype(np.float64)
    known = np.isfinite(depth) & (depth > 0)
    return hidden(truth, np.where(known, -np.log(np.where(known, depth, 1.0)), np.nan), _NEARER)


def _indirect(
    found: dict[str, Floats], data: PreparedRecordings, i: int, t: int, named: dict[str, str]
) -> pd.DataFrame:
    first, second = data.frame(i, t), data.frame(i, t + 1)
    errors = {name: redrawn_error(first, second, flow, data.valid(i, t + 1)) for name, flow in found.items()}
    valid = data.valid(i, t)
    rows = []
    for name, flow in found.items():
        length, error = np.linalg.norm(flow[valid], axis=-1), common_mean(errors, name, valid)
        median = float(np.median(length)) if len(length) else np.nan
        rows.append({**named, "method": name, "redrawn_error": error, "median_motion_px": median})
    return pd.DataFrame(rows)
