"""What are weak labels and error-corrective boosting worth? One command trains the four arms, scores and compares them.

Roy, Conjeti, Sheet, Katouzian, Navab, Wachinger, "Error Corrective Boosting for Learning Fully Convolutional Networks
with Limited Data", MICCAI 2017, https://arxiv.org/abs/1705.00938, table 1.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from medssl.arms import ArmTrainer, Steps, arms, pairs_to_compare, steps_in_budget
from medssl.comparison import compare_arms, predict_and_score
from medssl.data.catalog import FREESURFER_LABELS, catalog
from medssl.data.preparation import Preparation
from medssl.data.splits import check_no_leak, load_split, save_split, split_subjects
from medssl.evaluation.printing import arms_cells, comparison_cells, rich_table, show
from medssl.files import read_json, write_json
from medssl.labels.lut import label_set as find_label_set
from medssl.labels.protocols import protocol
from medssl.labels.weak import weak_labels_from_atlases
from medssl.methods.segmentation import Boosting
from medssl.report.page import Section
from medssl.stages import continued_run, prepared_and_told, stage
from medssl.tracking import hashed, open_tracker, ui_command
from medssl.train_segmentation import Recipe, seconds_per_step


def run(
    manual: Path,
    weak: Path,
    out: Path,
    *,
    manual_images: str | None = None,
    manual_labels: str | None = None,
    manual_reading: str = "neuromorphometrics",
    weak_reading: str = "aparc+aseg",
    label_set: str = "freesurfer-27",
    preparation: Preparation = Preparation(),
    split: Path | None = None,
    split_seed: int = 0,
    manual_count: int | None = None,
    validation_count: int = 2,
    test_count: int = 5,
    network: str = "unet",
    network_arguments: dict[str, Any] | None = None,
    recipe: Recipe = Recipe(),
    boosting: Boosting = Boosting(),
    seeds: Sequence[int] = (0,),
    minutes: float | None = None,
    pretrain_steps: int = 1500,
    finetune_steps: int = 1500,
    finetune_per_pretrain: float = 1.0,
    short_manual: bool = False,
    jobs: int = -1,
) -> dict[str, pd.DataFrame]:
    """Train on weak labels, on manual labels, and on both with and without boosting; score on held-out scans; compare.

    Started again with the same arguments it goes on where it was stopped, and does nothing twice.

    Args:
        manual: Scans that a person labelled.
        weak: Other subjects' scans with automatic labels: a SUBJECTS_DIR, or what ``medssl weak-labels`` wrote. Where
            no scan has any, the manual training scans are registered to each as atlases.
        out: Folder of all results: report.html and pictures under results_<n>_manual, the models under arms, and the
            MLflow store.
        manual_images: Pattern of the images in ``manual``, where its layout is not one that is found out.
        manual_labels: Pattern of the label maps in ``manual``.
        manual_reading: How the numbers in the manual labels are read: neuromorphometrics, aseg, aparc+aseg, or same.
        weak_reading: The same for the weak labels; in a SUBJECTS_DIR it is also the file that is read.
        label_set: The structures to learn: freesurfer-27, freesurfer-32, or a file in FreeSurfer's LUT format.
        preparation: How the scans are prepared.
        split: A JSON file with the manual subjects: {"train": [...], "validation": [...], "test": [...]}. By default
            they are drawn.
        split_seed: Of that draw. Test subjects are drawn first, then validation: they are the same for any
            ``manual_count``.
        manual_count: How many manual scans to train on; by default all that are left.
        validation_count: Manual subjects to validate on, by which boosting steers.
        test_count: Manual subjects to test on.
        network: Name of the network, see ``medssl networks``.
        network_arguments: Its own arguments.
        recipe: How each arm is trained.
        boosting: How the last arm is boosted.
        seeds: All arms are trained once with each.
        minutes: Budget for training all arms with all seeds; takes the place of the numbers of steps.
        pretrain_steps: Steps on weak labels.
        finetune_steps: Steps of fine-tuning on manual labels; the arm with manual labels alone gets the sum of both.
        finetune_per_pretrain: Ratio of the two where ``minutes`` is given.
        short_manual: Train a fifth arm: manual labels alone, for the steps of fine-tuning.
        jobs: Processes; -1 is one per core.

    Returns:
        The long table of test scores of each arm, all seeds together.

    Raises:
        InputError: An argument cannot be used, or no scan can.
    """
    structures = find_label_set(label_set)
    reading = protocol(manual_reading, structures)
    scans = {scan.name: scan for scan in catalog(manual, images=manual_images, labels=manual_labels)}
    all_manual = prepared_and_told(list(scans.values()), out / "prepared" / "manual", reading, preparation, jobs)
    left = len(set(all_manual.subjects)) - test_count - validation_count
    counts = {"test": test_count, "validation": validation_count, "train": manual_count or max(1, left)}
    parts = load_split(split) if split else split_subjects(all_manual.subjects, counts, split_seed)
    train, validation, test = (all_manual.select(parts[name]) for name in ("train", "validation", "test"))
    results = out / f"results_{len(train)}_manual"
    save_split(results / "split.json", parts)

    file_read = weak_reading if weak_reading in FREESURFER_LABELS else FREESURFER_LABELS[0]
    weak_scans = catalog(weak, freesurfer_labels=file_read)
    if not any(scan.label for scan in weak_scans):  # no labels yet: the manual training scans become atlases
        atlases = [scans[name] for name in train.scans]
        made = weak_labels_from_atlases(weak_scans, atlases, out / "weak_labels", structures, manual_reading, jobs=jobs)
        print(made.table())
        weak_scans, weak_reading = catalog(made.out), "same"
    weak_data = prepared_and_told(
        weak_scans, out / "prepared" / "weak", protocol(weak_reading, structures), preparation, jobs
    )
    check_no_leak({"train": train, "validation": validation, "test": test, "weak": weak_data})

    steps = Steps(pretrain_steps, finetune_steps)
    if minutes is not None:
        measured = stage(
            out / "plan",
            [minutes, network, network_arguments, repr(recipe), list(seeds), finetune_per_pretrain, short_manual],
            lambda folder: write_json(
                folder / "plan.json",
                {"seconds_per_step": seconds_per_step(train, validation, network, network_arguments, recipe)},
            ),
        )
        seconds = float(read_json(measured / "plan.json")["seconds_per_step"])
        steps = steps_in_budget(60 * minutes / len(seeds), seconds, finetune_per_pretrain, short_manual)
        print(f"{minutes:g} minutes at {seconds:.2f} s a step: {steps.pretrain} + {steps.finetune} steps.")

    tracker, book = open_tracker(out, "brain_segmentation"), out / "runs.json"
    trainer = ArmTrainer(
        out / "arms", {"weak": weak_data, "manual": train}, validation, network, network_arguments, recipe, boosting
    )
    tested = [scans[name] for name in test.scans]
    tables: dict[str, list[pd.DataFrame]] = {}
    sections: list[Section] = []
    with continued_run(tracker, book, f"brain_segmentation, {len(train)} manual scans") as parent:
        parent.log_params(
            {
                "manual": all_manual.fingerprint,
                "weak": weak_data.fingerprint,
                "weak_scans": len(weak_data),
                "label_set": structures.name,
                "split": {name: " ".join(map(hashed, members)) for name, members in parts.items()},
                "preparation": preparation.to_dict(),
            }
        )
        for seed in seeds:
            for arm in arms(steps, short_manual):
                name = arm.name + f", seed {seed}" * (len(seeds) > 1)
                with continued_run(tracker, book, name, parent) as child:
                    folder = trainer.train(arm, seed, child)
                    scores = predict_and_score(folder / "training" / "model", tested, reading, folder / "test", child)
                tables.setdefault(arm.name, []).append(scores)
                sections.append(Section(name, pictures=sorted(folder.glob("*/*.png"))))
        joined = {name: pd.concat(of_arm, ignore_index=True) for name, of_arm in tables.items()}
        found = compare_arms(joined, pairs_to_compare(short_manual), results, parent, sections=sections)
    for comparison in found:
        title = f"{comparison.other} against {comparison.baseline}"
        show(rich_table(comparison_cells(comparison), title, comparison.notes))
    show(rich_table(arms_cells(joined), "Dice on the test scans, mean ± sd over subjects"))
    print(f"Report: {results / 'report.html'}\nPictures: {results / 'pictures'}\nMLflow: {ui_command(out)}")
    return joined
