"""Probes against naive loops and closed forms; nothing is chosen on the test part."""

from collections import defaultdict
from math import exp, isnan

import numpy as np
import pytest
import torch
from sklearn.datasets import make_circles
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medssl.errors import InputError
from medssl.evaluation import probes
from medssl.evaluation.probes import knn_probe, linear_probe, mlp_probe

every_probe = pytest.mark.parametrize("probe", [knn_probe, linear_probe, mlp_probe])


def blobs(count, classes=2, width=6, distance=1.5, seed=0):
    """Features (count, width) around one centre per class, and labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    return distance * np.eye(width)[labels] + rng.normal(0, 1, (count, width)), labels


def parts(classes=2, **arguments):
    return (*blobs(80, classes, seed=1, **arguments), *blobs(60, classes, seed=2, **arguments))


def naive_knn(train, train_labels, test, k, temperature):
    """Vote by vote, as the paper writes it: the probability of the larger label, and the class with most votes."""
    shares, predicted = [], []
    for x in test:
        similarity = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for y in train]
        votes = defaultdict(float)
        for i in np.argsort(similarity)[-k:]:
            votes[train_labels[i]] += exp(similarity[i] / temperature)
        predicted.append(max(votes, key=votes.get))
        shares.append(votes[max(train_labels)] / sum(votes.values()))
    return np.array(shares), np.array(predicted)


def test_nearest_neighbours_match_a_naive_double_loop():
    train, train_labels, test, test_labels = parts()
    shares, predicted = naive_knn(train, train_labels, test, 7, 0.07)
    scores = knn_probe(train, train_labels, test, test_labels, k=7)
    assert scores.accuracy == pytest.approx((predicted == test_labels).mean())
    assert scores.balanced_accuracy == pytest.approx(balanced_accuracy_score(test_labels, predicted))
    assert scores.auc == pytest.approx(roc_auc_score(test_labels, shares))
    assert 0.5 < scores.accuracy < 1


def test_a_close_neighbour_outvotes_two_farther_ones():
    train, labels = np.array([[1, 0], [0.6, 0.8], [0.6, -0.8], [-1, 0]]), [0, 1, 1, 1]
    test, test_labels = np.array([[1, 0], [-1, 0]]), [0, 1]
    assert knn_probe(train, labels, test, test_labels, k=3).accuracy == 1  # exp(0.4 / 0.07) is more than 2
    assert knn_probe(train, labels, test, test_labels, k=3, temperature=10).accuracy == 0.5


def test_nearest_neighbours_do_not_depend_on_rotation_scale_or_blocks(monkeypatch):
    train, train_labels, test, test_labels = parts(classes=3)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    scores = knn_probe(train, train_labels, test, test_labels)
    assert knn_probe(3 * train @ turn, train_labels, 5 * test @ turn, test_labels)[:2] == pytest.approx(scores[:2])
    monkeypatch.setattr(probes, "_BLOCK", 7)
    assert knn_probe(train, train_labels, test, test_labels)[:2] == pytest.approx(scores[:2])


def test_one_penalty_is_the_plain_logistic_regression():
    train, train_labels, test, test_labels = parts()
    scores = linear_probe(train, train_labels, test, test_labels, penalties=[0.5])
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=2)).fit(train, train_labels)
    assert scores.accuracy == reference.score(test, test_labels)
    assert scores.auc == pytest.approx(roc_auc_score(test_labels, reference.predict_proba(test)[:, 1]), abs=1e-3)


def test_the_linear_probe_does_not_depend_on_scale_and_shift_of_each_feature():
    train, train_labels, test, test_labels = parts()
    scale, shift = np.array([1, 10, 100, 0.1, 1, 3]), np.arange(6) * 50
    once = linear_probe(train, train_labels, test, test_labels)
    again = linear_probe(train * scale + shift, train_labels, test * scale + shift, test_labels)
    assert again == pytest.approx(once, abs=1e-3)


def test_the_penalty_that_serves_unseen_samples_is_chosen():
    given = (*blobs(60, width=40, distance=1, seed=1), *blobs(600, width=40, distance=1, seed=2))
    loose, strict = (linear_probe(*given, penalties=[penalty]) for penalty in (1e-6, 30.0))
    assert loose.auc < strict.auc  # 60 samples in 40 dimensions: without a penalty, noise is learnt by heart
    assert linear_probe(*given, penalties=[1e-6, 30.0]) == strict


def test_the_test_part_has_no_say_in_the_fit(monkeypatch):
    train, train_labels, test, test_labels = parts()
    fitted = []
    plain = probes._scores
    monkeypatch.setattr(probes, "_scores", lambda p, truth: fitted.append(p) or plain(p, truth))
    linear_probe(train, train_labels, test, test_labels)
    linear_probe(
        train, train_labels, np.concatenate([test, 100 + test]), np.concatenate([test_labels, 1 - test_labels])
    )
    assert np.array_equal(fitted[0], fitted[1][: len(test)])


def test_what_is_not_linear_is_read_by_the_perceptron_alone():
    (train, train_labels), (test, test_labels) = (
        make_circles(120, noise=0.05, factor=0.5, random_state=seed) for seed in (0, 1)
    )
    linear = linear_probe(train, train_labels, test, test_labels)
    perceptron = mlp_probe(train, train_labels, test, test_labels, hidden=32, penalties=[0.01])
    assert linear.accuracy < 0.7 and perceptron.accuracy > 0.95


def test_the_same_seed_gives_the_same_perceptron():
    given = parts(classes=3)
    first, second = (mlp_probe(*given, hidden=8, epochs=20, penalties=[1.0], seed=4) for _ in range(2))
    assert first[:2] == second[:2]


@every_probe
def test_names_and_tensors_are_as_good_as_numbers(probe):
    train, train_labels, test, test_labels = parts(classes=3, distance=8)
    names = np.array(["glioma", "healthy", "stroke"])
    scores = probe(torch.from_numpy(train).float(), names[train_labels], torch.from_numpy(test), names[test_labels])
    assert (scores.accuracy, scores.balanced_accuracy) == (1, 1)
    assert isnan(scores.auc)
    assert probe(train, torch.from_numpy(train_labels), test, torch.from_numpy(test_labels)).accuracy == 1


@every_probe
def test_features_of_noise_are_worth_chance(probe):
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(100, 4)), rng.normal(size=(400, 4))
    scores = probe(train, np.arange(100) % 2, test, np.arange(400) % 2)
    assert scores.accuracy == pytest.approx(0.5, abs=0.1)
    assert scores.auc == pytest.approx(0.5, abs=0.1)


def test_balanced_accuracy_counts_every_class_of_the_test_part_alike():
    train, labels = np.array([[1.0, 0], [0, 1], [-1, 0]]), [0, 1, 2]
    test = np.array([[1.0, 0], [1, 0.1], [1, 0.2], [1, 0]])
    scores = knn_probe(train, labels, test, [0, 0, 0, 1], k=1)
    assert (scores.accuracy, scores.balanced_accuracy) == (0.75, 0.5)


def test_scans_of_one_subject_stay_together_when_the_penalty_is_chosen():
    labels = np.repeat([0, 1], 12)
    subjects = np.repeat([f"s{n}" for n in range(8)], 3)
    for seed in range(5):
        fit, chosen_on = probes._validation_split(labels, list(subjects), seed)
        assert not set(subjects[fit]) & set(subjects[chosen_on])
        assert sorted([*fit, *chosen_on]) == list(range(24))
        assert set(labels[fit]) == {0, 1}


def test_a_class_of_one_subject_cannot_be_split_and_the_message_says_so():
    features, labels = blobs(12)
    subjects = ["anna", "ben"] * 6
    with pytest.raises(InputError, match=r"12 training samples of 2 subjects.*at least two subjects of each class"):
        linear_probe(features, labels, features, labels, subjects=subjects)


@every_probe
def test_missing_classes_and_misfits_are_refused(probe):
    x, y = blobs(30, classes=3)
    with pytest.raises(InputError, match="test part holds the classes 2, which the training part lacks; it has 0, 1"):
        probe(x[y < 2], y[y < 2], x, y)
    with pytest.raises(InputError, match="training part holds the class 1 alone"):
        probe(x[y == 1], y[y == 1], x, y)
    with pytest.raises(InputError, match="test part holds the class 1 alone"):
        probe(x, y, x[y == 1], y[y == 1])
    with pytest.raises(InputError, match=r"features \(30, 6\) with 29 labels"):
        probe(x, y[1:], x, y)
    with pytest.raises(InputError, match="The test features hold NaN or infinity in 1 of 30 rows"):
        probe(x, y, np.where(np.arange(30)[:, None] == 3, np.nan, x), y)


def test_more_neighbours_than_samples_are_refused():
    x, y = blobs(10)
    with pytest.raises(InputError, match=r"k=20 .*got 10"):
        knn_probe(x, y, x, y)


def test_subjects_are_counted():
    x, y = blobs(10)
    with pytest.raises(InputError, match="10 training samples need as many subjects, got 2"):
        linear_probe(x, y, x, y, subjects=["a", "b"])
