"""``medssl probe``: what a frozen encoder knows, against the same network with random weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from medssl.data.catalog import FREESURFER_LABELS, catalog
from medssl.data.classes import classified
from medssl.data.prepare import prepare
from medssl.data.prepared import PreparedDataset
from medssl.data.splits import load_split, save_split, split_subjects
from medssl.errors import InputError
from medssl.evaluation.printing import rich_table, show
from medssl.evaluation.retrieval import Neighbours, nearest_neighbours
from medssl.evaluation.scan_probes import FEWEST, probe_encoder
from medssl.evaluation.tables import write_table
from medssl.labels.lut import label_set as find_label_set
from medssl.labels.protocols import protocol
from medssl.networks import build_encoder
from medssl.networks.encoder import Encoder
from medssl.pretrained import PretrainedEncoder, load_pretrained
from medssl.report.neighbours import neighbours_picture
from medssl.report.page import Section, html_report
from medssl.start import tell_of_other_preparation
from medssl.tracking import open_tracker, ui_command

_QUERIES = 6
_SUMMARY = ("dice/mean", "accuracy", "balanced_accuracy", "auc", "recall", "ndcg")  # come first


def probe(
    encoder: str,
    *,
    data: Path,
    out: Path,
    reading: str | None = None,
    label_set: str = "freesurfer-27",
    classes: Path | None = None,
    split: Path | None = None,
    test_share: float = 0.4,
    patch_size: tuple[int, ...] | None = None,
    neighbours: int = 5,
    crops: int = 32,
    steps: int = 300,
    random: bool = True,
    seed: int = 0,
    jobs: int = -1,
) -> pd.DataFrame:
    """Probe a frozen encoder: segmentation where there are label maps, classification where there are classes.

    Args:
        encoder: A pretrained encoder's folder or MLflow URI.
        data: What ``medssl prepare`` wrote, or scans in any layout that it takes; they are prepared as those were that
            the encoder was pretrained on.
        out: Folder of the results: probe.csv, report.html, pictures and the MLflow store.
        reading: How the numbers in label maps are read, where ``data`` is not prepared yet; see ``medssl prepare``.
        label_set: The structures, where ``data`` is not prepared yet.
        classes: A CSV table of the images' classes, with the columns scan (or subject) and class, in place of those
            that they were prepared with.
        split: A JSON file {"train": [...], "test": [...]} of subjects; by default they are drawn.
        test_share: Share of the subjects that are drawn for the test.
        patch_size: Of the windows, voxels; by default what the encoder was pretrained to see.
        neighbours: k of the k-nearest-neighbour probe and of retrieval.
        crops: Crops that the segmentation probe is trained on.
        steps: Of the segmentation probe.
        random: Probe the same network with random weights too: what the architecture alone is worth.
        seed: Of the split, the crops and the random weights.
        jobs: Processes that prepare; -1 is one per core.

    Returns:
        One row per score: encoder, probe, score, value.
    """
    trained = load_pretrained(encoder)
    prepared = _prepared(data, out / "prepared", trained, reading, label_set, jobs)
    tell_of_other_preparation(encoder, trained.preparation.to_dict(), prepared.preparation)
    if classes is not None:
        prepared = classified(prepared, classes)
    parts = _split(prepared, split, test_share, seed)
    save_split(out / "split.json", parts)
    train, test = prepared.select(parts["train"]), prepared.select(parts["test"])
    size = patch_size or trained.patch_size
    encoders: dict[str, Encoder] = {"pretrained": trained.encoder}
    if random:
        torch.manual_seed(seed)
        shape = trained.encoder.in_channels, trained.encoder.spatial_dims
        encoders["random weights"] = build_encoder(trained.name, *shape, **trained.arguments).eval()
    rows: list[dict[str, Any]] = []
    pictures: list[Path] = []
    tracker = open_tracker(out, "probe")
    with tracker.run(out.name) as run:
        run.log_params({"encoder": trained.run, "data": prepared.fingerprint, "patch_size": size, "seed": seed})
        for name, network in encoders.items():
            scores, vectors = probe_encoder(
                network, train, test, size, neighbours=neighbours, crops=crops, steps=steps, seed=seed
            )
            for key, value in scores.items():
                kind, score = key.split("/", 1)
                rows.append({"encoder": name, "probe": kind, "score": score, "value": value})
            pictures += _neighbours(vectors, test, neighbours, out / "pictures" / f"{name.split()[0]}.png", name)
            run.log_metrics({f"{name.replace(' ', '_')}/{key}": v for key, v in scores.items() if v == v}, 0)
        table = pd.DataFrame(rows, columns=["encoder", "probe", "score", "value"])
        write_table(out / "probe.csv", table)
        wide = table.pivot_table(index=["probe", "score"], columns="encoder", values="value", sort=False)
        wide = wide.reset_index().rename_axis(columns=None)  # the page would show the axis' name as one column more
        summary = wide["score"].isin(_SUMMARY)
        html_report(
            "What the frozen encoder knows",
            [
                Section(
                    "Scores",
                    f"{len(train)} scans to fit, {len(test)} to test.",
                    pd.concat([wide[summary], wide[~summary]]),
                    pictures,
                )
            ],
            out / "report.html",
        )
        run.log_table(table, "probe")
        run.log_file(out / "report.html")
    if rows:
        show(rich_table(wide[summary].round(3).astype(str), "Frozen features"))
    else:
        print(
            f"{data}: nothing can be scored: at least {FEWEST} scans of each part need a class, or some of each a "
            "label map. Give --classes TABLE, or prepare with --reading; the report shows nearest neighbours alone."
        )
    print(f"Report: {out / 'report.html'}\nMLflow: {ui_command(out)}")
    return table


def _prepared(
    data: Path, out: Path, trained: PretrainedEncoder, reading: str | None, label_set: str, jobs: int
) -> PreparedDataset:
    if (data / "prepared.json").is_file():
        prepared = PreparedDataset(data)
    else:
        file_read = reading if reading in FREESURFER_LABELS else FREESURFER_LABELS[0]
        scans = catalog(data, freesurfer_labels=file_read)
        name = reading or next((scan.protocol for scan in scans if scan.protocol), None)
        rules = None if name is None else protocol(name, find_label_set(label_set))
        report = prepare(scans, out, rules, trained.preparation, jobs=jobs)
        print(report.table())
        prepared = report.dataset()
    found, expected = prepared.spatial_dims, trained.encoder.spatial_dims
    if found != expected or prepared.channels != trained.encoder.in_channels:
        raise InputError(
            f"{data}: holds {found}D images of {prepared.channels} channels; the encoder sees {expected}D ones of "
            f"{trained.encoder.in_channels}. Probe it on images of the kind that it was pretrained on."
        )
    return prepared


def _split(
    prepared: PreparedDataset, split: Path | None, test_share: float, seed: int
) -> Mapping[str, tuple[str, ...]]:
    if split is not None:
        return load_split(split)
    subjects = sorted(set(prepared.subjects))
    count = max(1, round(test_share * len(subjects)))
    return split_subjects(subjects, {"test": count, "train": max(1, len(subjects) - count)}, seed)


def _neighbours(z: Tensor, data: PreparedDataset, k: int, path: Path, title: str) -> list[Path]:
    """Draw test scans beside their nearest ones, with their classes where they are known."""
    if len(z) < 2:
        return []
    found = nearest_neighbours(z, k=min(k, len(z) - 1))
    queries = range(min(_QUERIES, len(z)))
    images = [data.image(i) for i in range(len(data))]
    names = None
    if data.classes is not None and all(data.category(i) is not None for i in range(len(data))):
        names = [data.classes[int(data.category(i) or 0)] for i in range(len(data))]
    neighbours_picture(
        [images[i] for i in queries],
        images,
        Neighbours(found.indices[: len(queries)], found.similarity[: len(queries)]),
        path,
        f"Test scans and their nearest, {title}",
        labels=None if names is None else [names[i] for i in queries],
        gallery_labels=names,
    )
    return [path]
