"""What simple classifiers read from frozen features: neighbours, a linear layer, a small perceptron.

Weighted nearest neighbours after Wu, Xiong, Yu, Lin, "Unsupervised Feature Learning via Non-Parametric Instance
Discrimination", CVPR 2018, https://arxiv.org/abs/1805.01978, section 3.4; linear probe after Alain & Bengio,
"Understanding intermediate layers using linear classifier probes", https://arxiv.org/abs/1610.01644. Nothing is ever
chosen on the test part.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional as F

from medssl.errors import InputError
from medssl.evaluation.health import Embeddings, as_embeddings
from medssl.metrics import confusion, recall_from_confusion

PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
"""L2 penalties that are tried: (penalty / 2) |w|^2 beside the sum of the samples' log losses, features standardised."""

_BLOCK = 1024  # test samples whose similarities to all training samples are held at once
_BATCH = 32  # small: on a hundred scans the perceptron needs more than one step per epoch
_VALIDATION_FOLDS = 4  # one of them, a quarter of the training part, chooses the penalty


class ProbeScores(NamedTuple):
    """What a probe reads from the test part, each 0..1; ``auc`` is NaN unless there are two classes.

    ``balanced_accuracy`` is the mean recall of the classes that the test part holds; ``auc`` takes the larger of
    the two labels as positive.
    """

    accuracy: float
    balanced_accuracy: float
    auc: float


class _Data(NamedTuple):
    """Checked input: features (N, D) and (M, D), and labels as indices of the sorted classes of the training part."""

    train: Tensor
    train_classes: NDArray[np.int64]
    test: Tensor
    test_classes: NDArray[np.int64]
    classes: int


def knn_probe(
    train: Embeddings,
    train_labels: ArrayLike,
    test: Embeddings,
    test_labels: ArrayLike,
    k: int = 20,
    temperature: float = 0.07,
) -> ProbeScores:
    """Let the k nearest training samples vote, each with exp(cosine similarity / temperature).

    Args:
        train: Features (N, D).
        train_labels: (N,), integers or names.
        test: Features (M, D).
        test_labels: (M,).
        k: How many vote; the paper's 200 is for a million images.
        temperature: Small: the nearest decide alone; the paper's 0.07.

    Raises:
        InputError: There are fewer than k training samples, or see ``linear_probe``.
    """
    data = _checked(train, train_labels, test, test_labels)
    if not 1 <= k <= len(data.train):
        raise InputError(f"k={k} neighbours need k of 1 or more and as many training samples, got {len(data.train)}.")
    gallery = F.normalize(data.train, dim=1)
    owners = torch.from_numpy(data.train_classes).to(gallery.device)
    votes = []
    for block in F.normalize(data.test.to(gallery), dim=1).split(_BLOCK):
        similarity, nearest = (block @ gallery.T).topk(k, dim=1)  # (block, k)
        weight = torch.exp((similarity - 1) / temperature)  # at most 1, so that nothing overflows
        votes.append(weight.new_zeros(len(block), data.classes).scatter_add_(1, owners[nearest], weight))
    vote = torch.cat(votes)
    return _scores((vote / vote.sum(1, keepdim=True)).numpy(force=True), data.test_classes)


def linear_probe(
    train: Embeddings,
    train_labels: ArrayLike,
    test: Embeddings,
    test_labels: ArrayLike,
    *,
    subjects: Sequence[str] | None = None,
    penalties: Sequence[float] = PENALTIES,
    seed: int = 0,
) -> ProbeScores:
    """Fit a multinomial logistic regression.

    Features are standardised by the training part. The L2 penalty is the one with the least log loss on a quarter of
    the training part; the probe is then fitted to all of it.

    Args:
        train: Features (N, D).
        train_labels: (N,), integers or names.
        test: Features (M, D).
        test_labels: (M,).
        subjects: (N,), whose the training samples are; one subject's stay together when the quarter is drawn.
        penalties: To choose from, see ``PENALTIES``.
        seed: Of the quarter.

    Raises:
        InputError: Features hold NaN or do not fit together; a part has fewer than two classes; the test part has a
            class that the training part lacks; or a class has one subject alone, so that no quarter can be set aside.
    """

    def classifier(penalty: float) -> Any:
        return LogisticRegression(C=1 / penalty, max_iter=5000)

    return _fitted_scores(_checked(train, train_labels, test, test_labels), classifier, subjects, penalties, seed)


def mlp_probe(
    train: Embeddings,
    train_labels: ArrayLike,
    test: Embeddings,
    test_labels: ArrayLike,
    *,
    hidden: int = 256,
    epochs: int = 200,
    subjects: Sequence[str] | None = None,
    penalties: Sequence[float] = PENALTIES,
    seed: int = 0,
) -> ProbeScores:
    """Fit a perceptron with one hidden layer, otherwise as ``linear_probe`` does: what is there, but not linearly.

    Args:
        train: Features (N, D).
        train_labels: (N,), integers or names.
        test: Features (M, D).
        test_labels: (M,).
        hidden: Width of the hidden layer.
        epochs: Most passes over the training part.
        subjects: See ``linear_probe``.
        penalties: To choose from, see ``PENALTIES``.
        seed: Of the quarter, the weights and the batches.

    Raises:
        InputError: See ``linear_probe``.
    """
    data = _checked(train, train_labels, test, test_labels)
    batch = min(_BATCH, len(data.train) // 2)

    def classifier(penalty: float) -> Any:
        return MLPClassifier((hidden,), alpha=penalty, batch_size=batch, max_iter=epochs, random_state=seed)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is meant
        return _fitted_scores(data, classifier, subjects, penalties, seed)


def _fitted_scores(
    data: _Data,
    classifier: Callable[[float], Any],
    subjects: Sequence[str] | None,
    penalties: Sequence[float],
    seed: int,
) -> ProbeScores:
    x, y = data.train.double().numpy(force=True), data.train_classes
    fit, chosen_on = _validation_split(y, subjects, seed)

    def fitted(penalty: float, rows: NDArray[np.int64] | slice) -> Any:
        return make_pipeline(StandardScaler(), classifier(penalty)).fit(x[rows], y[rows])

    def loss(penalty: float) -> float:
        p = fitted(penalty, fit).predict_proba(x[chosen_on])
        return float(log_loss(y[chosen_on], p, labels=np.arange(data.classes)))

    best = fitted(min(penalties, key=loss), slice(None))
    return _scores(best.predict_proba(data.test.double().numpy(force=True)), data.test_classes)


def _validation_split(
    y: NDArray[np.int64], subjects: Sequence[str] | None, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to fit and rows to choose the penalty on: no subject in both, every class in the first."""
    owners = np.arange(len(y)) if subjects is None else np.unique(np.asarray(subjects), return_inverse=True)[1]
    if len(owners) != len(y):
        raise InputError(f"{len(y)} training samples need as many subjects, got {len(owners)}.")
    folds = min(_VALIDATION_FOLDS, len(np.unique(owners)), int(np.bincount(y).max()))
    if folds >= 2:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a class rarer than the folds: looked at below
            splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
            splits = list(splitter.split(np.zeros(len(y)), y, owners))
        for fit, chosen_on in splits:
            if len(chosen_on) and len(np.unique(y[fit])) == len(np.unique(y)):
                return fit, chosen_on
    raise InputError(
        f"The {len(y)} training samples of {len(np.unique(owners))} subjects cannot be split so that both parts keep "
        "every class, which choosing the penalty needs: give at least two subjects of each class."
    )


def _checked(train: Embeddings, train_labels: ArrayLike, test: Embeddings, test_labels: ArrayLike) -> _Data:
    x, x_test = as_embeddings(train, "The training features"), as_embeddings(test, "The test features")
    y, y_test = _label_array(train_labels), _label_array(test_labels)
    if len(x) != len(y) or len(x_test) != len(y_test) or x.shape[1] != x_test.shape[1]:
        raise InputError(
            "Features and labels of both parts must fit together: got training features "
            f"{tuple(x.shape)} with {len(y)} labels, test features {tuple(x_test.shape)} with {len(y_test)} labels."
        )
    known = np.unique(y)
    for part, held in (("training", known), ("test", np.unique(y_test))):
        if len(held) < 2:
            raise InputError(f"The {part} part holds the class {held[0]} alone: a probe needs two or more. Split anew.")
    if len(unknown := np.setdiff1d(y_test, known)):
        raise InputError(
            f"The test part holds the classes {', '.join(map(str, unknown))}, which the training part lacks; it has "
            f"{', '.join(map(str, known))}. Split so that the training part holds every class."
        )
    return _Data(x, np.searchsorted(known, y), x_test, np.searchsorted(known, y_test), len(known))


def _label_array(labels: ArrayLike) -> NDArray[Any]:
    return labels.numpy(force=True) if isinstance(labels, Tensor) else np.asarray(labels)


def _scores(probability: NDArray[np.floating[Any]], truth: NDArray[np.int64]) -> ProbeScores:
    """Score the probabilities (M, classes) against the class indices (M,)."""
    classes = probability.shape[1]
    predicted = probability.argmax(1)
    recall = recall_from_confusion(confusion(predicted, truth, classes))
    auc = float(roc_auc_score(truth, probability[:, 1])) if classes == 2 else float("nan")
    return ProbeScores(float((predicted == truth).mean()), float(np.nanmean(recall)), auc)
