"""What frozen features tell of where a crop is, of which scan or site it is, and how bright it is.

A linear probe on the features of crops, beside the same probe on the encoder as it was before training: what both tell
alike was never learnt. A place can be told by anatomy too, so a probe accuses nobody by itself; a site that is told on
scans of other subjects is a cue.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest
from torch import Generator, Tensor
from torch.utils.data import default_collate

from medssl.data.crops import seed_of
from medssl.data.prepared import PreparedDataset
from medssl.errors import InputError
from medssl.evaluation.probes import linear_probe
from medssl.networks.encoder import Encoder
from medssl.networks.heads import pooled
from medssl.patches import pad_to, random_crop

_FREE = 1 / 8  # of the scan: less room for the crop along an axis tells no two halves apart
_CROPS_PER_SCAN = 8  # at least, to learn a scan from
_BATCH = 16

_MEANING = {
    "position": "Anatomy tells a place too, so that this alone is no shortcut.",
    "intensity": "It is a cue without anatomy where scanners or coils differ; where organs do, it is anatomy.",
    "scan": "A scan is known by its scanner as by its anatomy; give the sites of the scans to tell the two apart.",
    "site": "The scans are of other subjects than the probe was fitted on, so that it is known by its scanner.",
}


class Crops(NamedTuple):
    """Random crops, as encoders see them.

    Attributes:
        features: One tensor (N, D) per encoder.
        told: One row per crop: ``scan``, ``subject``, ``position`` (which half along each axis with room, low or high;
            empty where no axis has), ``mean``.
    """

    features: tuple[Tensor, ...]
    told: pd.DataFrame


def random_crops(
    encoders: Sequence[Encoder], data: PreparedDataset, patch_size: Sequence[int], count: int, seed: int
) -> Crops:
    """Read crops at random places of each scan in turn, and encode them; crop ``n`` depends on (seed, n) alone."""
    free = [
        all(data.shape(i)[axis] - n >= max(1, _FREE * data.shape(i)[axis]) for i in range(len(data)))
        for axis, n in enumerate(patch_size)
    ]
    rows: list[dict[str, Any]] = []
    features: list[list[Tensor]] = [[] for _ in encoders]
    waiting: list[Tensor] = []
    for number in range(count):
        scan = number % len(data)
        where = random_crop(patch_size, data.shape(scan), Generator().manual_seed(seed_of(seed, "probe", number)))
        image = torch.from_numpy(np.ascontiguousarray(pad_to(data.image(scan, where), patch_size)))
        halves = [
            "high" if part.start + part.stop > data.shape(scan)[axis] else "low"
            for axis, part in enumerate(where)
            if free[axis]
        ]
        rows.append(
            {
                "scan": data.scans[scan],
                "subject": data.subjects[scan],
                "position": " ".join(halves),
                "mean": float(image.mean()),
            }
        )
        waiting.append(image)
        if len(waiting) == _BATCH or number == count - 1:
            for found, encoder in zip(features, encoders, strict=True):
                found.append(_encoded(encoder, default_collate(waiting)))
            waiting = []
    return Crops(tuple(torch.cat(found) for found in features), pd.DataFrame(rows))


def cue_probes(
    encoders: Mapping[str, Encoder],
    fit: PreparedDataset,
    test: PreparedDataset,
    patch_size: Sequence[int],
    *,
    count: int = 256,
    sites: Mapping[str, str] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Probe each encoder for position, intensity, and site or scan.

    Probes are fitted on crops of one part's scans and judged on the other's; the probe of the scan is judged on other
    crops of the scans it was fitted on, held-out ones where there are two.

    Args:
        encoders: By name, the trained one first.
        fit: Scans that probes are fitted on.
        test: Scans of other subjects.
        patch_size: Of the crops, voxels.
        count: Crops of each part.
        sites: The site of each scan; scans without one take no part in its probe.
        seed: Of the crops.

    Returns:
        One row per cue: ``cue``, ``classes``, ``chance`` (the commonest class), the ``accuracy`` of the first encoder
        with its 95 % interval ``low`` to ``high`` (Wilson's, as if crops were independent), that of the others under
        their names, ``predictable`` (the interval lies above chance), and ``note``: why there are no numbers.
    """
    networks = list(encoders.values())
    a, b = (random_crops(networks, data, patch_size, count, seed + part) for part, data in enumerate((fit, test)))
    edges = a.told["mean"].quantile([1 / 3, 2 / 3]).to_numpy()
    labels: dict[str, tuple[Crops, Any, Crops, Any]] = {
        "position": (a, a.told["position"], b, b.told["position"]),
        "intensity": (a, np.digitize(a.told["mean"], edges), b, np.digitize(b.told["mean"], edges)),
    }
    if sites is None:
        part = test if len(test) > 1 else fit
        chosen = part.select(list(dict.fromkeys(part.subjects))[: max(2, count // _CROPS_PER_SCAN)])
        c, d = (random_crops(networks, chosen, patch_size, count, seed + more) for more in (2, 3))
        labels["scan"] = (c, c.told["scan"], d, d.told["scan"])
    else:
        a, b = (_with_site(crops, sites) for crops in (a, b))
        labels["site"] = (a, a.told["site"], b, b.told["site"])
    return pd.DataFrame([_row(cue, list(encoders), *parts, seed) for cue, parts in labels.items()])


def probe_sentences(probes: pd.DataFrame) -> list[str]:
    """Say in plain sentences which cue is told from the features, and what that means."""
    said = []
    for row in probes.itertuples():
        if row.note:
            said.append(f"The {row.cue} was not looked for. {row.note}")
            continue
        verdict = "tell" if row.predictable else "do not tell"
        said.append(
            f"The features {verdict} the {row.cue}: {row.accuracy:.0%} ({row.low:.0%} to {row.high:.0%}) of held-out "
            f"crops, where the commonest of {row.classes} classes is {row.chance:.0%} and the encoder before training "
            f"tells {row.untrained:.0%}. {_MEANING[row.cue]}"
        )
    return said


def _row(cue: str, names: Sequence[str], a: Crops, label: Any, b: Crops, label_b: Any, seed: int) -> dict[str, Any]:
    y, y_test = np.asarray(label), np.asarray(label_b)
    row: dict[str, Any] = {"cue": cue, "classes": len(np.unique(y)), "chance": np.nan, "predictable": False, "note": ""}
    subjects = None if cue == "scan" else list(a.told["subject"])
    try:
        scores = [
            linear_probe(x, y, x_test, y_test, subjects=subjects, seed=seed).accuracy
            for x, x_test in zip(a.features, b.features, strict=True)
        ]
    except InputError as error:
        return {**row, "note": f"Not probed: {error}"}
    values, counts = np.unique(y, return_counts=True)
    n = len(y_test)
    row["chance"] = float((y_test == values[counts.argmax()]).mean())
    exact = binomtest(round(scores[0] * n), n).proportion_ci(method="wilson")
    row |= {"accuracy": scores[0], "low": float(exact.low), "high": float(exact.high)}
    row |= dict(zip(names[1:], scores[1:], strict=True))
    row["predictable"] = row["low"] > row["chance"]
    return row


def _with_site(crops: Crops, sites: Mapping[str, str]) -> Crops:
    site = crops.told["scan"].map(sites)
    known = site.notna().to_numpy()
    told = crops.told[known].assign(site=site[known])
    return Crops(tuple(x[torch.tensor(known)] for x in crops.features), told)


def _encoded(encoder: Encoder, image: Tensor) -> Tensor:
    device = next(encoder.parameters()).device
    with torch.no_grad():
        return pooled(encoder.eval()(image.to(device))).float().cpu()
