"""All probes of a frozen encoder on prepared scans: classes of scans where there are some, structures where drawn."""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from medssl.data.prepared import PreparedDataset
from medssl.evaluation.embedding import embed_scans
from medssl.evaluation.probes import knn_probe, linear_probe, mlp_probe
from medssl.evaluation.retrieval import retrieve
from medssl.evaluation.segmentation_probe import probe_segmentation
from medssl.networks.encoder import Encoder

FEWEST = 4  # scans of each part with a class


class Probed(NamedTuple):
    """Scores by ``<probe>/<score>``, and the vectors (N, D) of the test scans, without what all scans share."""

    scores: dict[str, float]
    vectors: Tensor


def probe_encoder(
    encoder: Encoder,
    train: PreparedDataset,
    test: PreparedDataset,
    patch_size: tuple[int, ...],
    *,
    neighbours: int = 5,
    crops: int = 32,
    steps: int = 300,
    seed: int = 0,
) -> Probed:
    """Fit every probe that the labels allow on ``train``, and score it on ``test``.

    Args:
        encoder: Left as it is.
        train: Prepared scans.
        test: Those of other subjects.
        patch_size: Of the windows and crops, voxels.
        neighbours: k of the k-nearest-neighbour probe and of retrieval, at most the number of training scans.
        crops: That the segmentation probe is trained on.
        steps: Of the segmentation probe.
        seed: Of the crops and of what is set aside for choosing penalties.

    Raises:
        InputError: See the probes.
    """
    z_train, z_test = (embed_scans(encoder, part, patch_size) for part in (train, test))
    shared = z_train.mean(0)  # what all scans share says nothing of one
    z_train, z_test = z_train - shared, z_test - shared
    scores = class_scores(z_train, train, z_test, test, neighbours, seed)
    if labelled(train) and labelled(test):
        parts = labelled_part(train), labelled_part(test)
        found = probe_segmentation(encoder, *parts, patch_size, crops=crops, steps=steps, seed=seed)
        scores |= {f"segmentation/{name}": value for name, value in found.items()}
    return Probed(scores, z_test)


def class_scores(
    z_train: Tensor, train: PreparedDataset, z_test: Tensor, test: PreparedDataset, neighbours: int, seed: int
) -> dict[str, float]:
    """Score what vectors of scans tell of the scans' classes; nothing where there are too few with one."""
    rows = [[i for i in range(len(part)) if part.category(i) is not None] for part in (train, test)]
    if train.classes is None or min(map(len, rows)) < FEWEST:
        return {}
    names = train.classes
    a, b = z_train[rows[0]], z_test[rows[1]]
    c, d = (
        np.array([names[part.category(i) or 0] for i in known]) for part, known in zip((train, test), rows, strict=True)
    )
    probes = {
        f"{neighbours}-nearest neighbours": knn_probe(a, c, b, d, k=min(neighbours, len(a))),
        "linear": linear_probe(a, c, b, d, seed=seed),
        "perceptron": mlp_probe(a, c, b, d, seed=seed),
    }
    scores = {f"{probe}/{key}": value for probe, found in probes.items() for key, value in found._asdict().items()}
    found = retrieve(b, d, a, c, k=min(neighbours, len(a)))
    return scores | {"retrieval/recall": found.recall, "retrieval/ndcg": found.ndcg}


def labelled(data: PreparedDataset) -> bool:
    """Say whether any scan has a label map."""
    return data.label_set is not None and any(data.labelled(i) for i in range(len(data)))


def labelled_part(data: PreparedDataset) -> PreparedDataset:
    """Leave out the subjects of whom a scan has no label map."""
    without = {data.subjects[i] for i in range(len(data)) if not data.labelled(i)}
    return data.select(set(data.subjects) - without)
