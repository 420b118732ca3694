"""Is pretraining on CT worth anything for segmenting organs from weak labels? One command trains both, and compares.

Pretraining for CT after Zhou et al., "Models Genesis", Medical Image Analysis 67, 2021,
https://arxiv.org/abs/2004.07882; weak labels such as those of Wasserthal et al., "TotalSegmentator", Radiology:
Artificial Intelligence 2023, https://doi.org/10.1148/ryai.230024. Head CT has a pipeline of its own, ``ct_head``.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from medssl.data.catalog import Scan, catalog
from medssl.data.preparation import Preparation
from medssl.data.slabs import SLABS, cut_into_slabs, others_than, structures_of_each
from medssl.data.splits import check_no_leak, save_split
from medssl.efficiency_study import (
    StudyData,
    StudyPlan,
    how_it_was_measured,
    scans_to_pretrain_on,
    split_study,
    what_is_not_known,
)
from medssl.efficiency_training import EfficiencyTrainer
from medssl.errors import InputError
from medssl.evaluation.efficiency import SCRATCH, named
from medssl.evaluation.printing import arms_cells, comparison_cells, rich_table, show
from medssl.evaluation.statistics import Comparison, compare
from medssl.evaluation.tables import write_table
from medssl.labels.chosen import choose
from medssl.labels.lut import LabelSet
from medssl.labels.lut import label_set as find_label_set
from medssl.labels.protocols import Protocol
from medssl.networks import encoder_parameters
from medssl.pretrain import PretrainRecipe
from medssl.report.charts import arms_picture, dice_boxplot
from medssl.report.page import Section, html_report
from medssl.stages import continued_run, prepared_and_told
from medssl.tracking import hashed, open_tracker, ui_command
from medssl.train_segmentation import Recipe

TOTALSEGMENTATOR = Path(__file__).parent / "totalsegmentator.txt"

_PARTS = ("pool", "validation", "test")
_ONE_SCAN = (
    "ONE SCAN. Trained on the lower part of one patient's scan and tested on its upper part, for want of a second "
    "patient; only structures that both parts show were learnt. This is no evidence for any other patient, scanner or "
    "hospital: it says that the pipeline runs on these files."
)
_WEAK = (
    "Where the label maps are another program's output, nobody corrected what was trained on and tested against: Dice "
    "is the agreement with that program, its mistakes included."
)


def run(
    labelled: Path,
    out: Path,
    *,
    unlabelled: Path | None = None,
    labelled_images: str | None = None,
    labelled_labels: str | None = None,
    unlabelled_images: str | None = None,
    label_table: Path = TOTALSEGMENTATOR,
    structures: Sequence[str] | None = None,
    preparation: Preparation = Preparation(spacing_mm=2.0, intensity="ct"),
    split: Path | None = None,
    split_seed: int = 0,
    validation_count: int = 1,
    test_count: int = 5,
    within_scan: bool = False,
    method: str = "models_genesis",
    method_arguments: dict[str, Any] | None = None,
    network: str = "unet",
    network_arguments: dict[str, Any] | None = None,
    pretraining: PretrainRecipe = PretrainRecipe(patience=None),
    pretrain_steps: int = 2000,
    recipe: Recipe = Recipe(),
    finetune_steps: int = 1000,
    seeds: Sequence[int] = (0,),
    jobs: int = -1,
) -> dict[str, pd.DataFrame]:
    """Pretrain on CT without labels, fine-tune to organs from it and from scratch, test on other subjects, compare.

    Started again with the same arguments it goes on where it was stopped, and does nothing twice. Regions of head CT
    are found by ``medssl run ct_head``.

    Args:
        labelled: CT in Hounsfield numbers with label maps, such as another program's (weak labels).
        out: Folder of all results: results/report.html, the encoder under pretraining, the models under trainings, and
            the MLflow store.
        unlabelled: More CT to pretrain on; may be the labelled folder. Test and validation subjects are kept out.
        labelled_images: Pattern of the images in ``labelled``, where its layout is not one that is found out.
        labelled_labels: Pattern of the label maps in ``labelled``.
        unlabelled_images: Pattern of the images in ``unlabelled``.
        label_table: A file in FreeSurfer's LUT format with every number that the label maps may hold; by default
            TotalSegmentator's.
        structures: Names in it to learn, the others are background; by default all.
        preparation: How the scans are prepared; intensity is ct, and window_hu what becomes 0..1. The default shows
            soft tissue; [-1000, 400] shows lungs as well.
        split: A JSON file with the labelled subjects: {"test": [...], "validation": [...], "pool": [...]}. By default
            they are drawn.
        split_seed: Of that draw, and of the pretraining.
        validation_count: Labelled subjects that are watched while training; nothing is chosen by them.
        test_count: Labelled subjects to test on; under 5 there is no p-value.
        within_scan: Of one labelled scan, train on the lower half and test on the upper part. No evidence for others.
        method: Of pretraining, see ``medssl methods``.
        method_arguments: Its own arguments.
        network: Name of the segmentation network, whose encoder is pretrained; see ``medssl networks``.
        network_arguments: Its own arguments, of both trainings; by default group normalisation where it has the choice.
        pretraining: How the method is trained.
        pretrain_steps: For how long.
        recipe: How both are fine-tuned.
        finetune_steps: For how long, from scratch as well.
        seeds: Both are fine-tuned once with each.
        jobs: Processes that prepare; -1 is one per core.

    Returns:
        The long table of test scores of each arm, all seeds together.

    Raises:
        InputError: An argument cannot be used, no scan can, or there are too few subjects to test on others.
    """
    if preparation.intensity != "ct":
        raise InputError(f"preparation.intensity={preparation.intensity}: this pipeline is for CT, which has a window.")
    if network_arguments is None:
        network_arguments = {"norm": "group"} if "norm" in encoder_parameters(network) else {}
    plan = StudyPlan(
        (method,),
        {method: method_arguments or {}},
        (1,),
        tuple(seeds),
        network,
        network_arguments,
        pretraining,
        pretrain_steps,
        recipe,
        finetune_steps,
        split_seed,
        probe_steps=0,
    )
    table = find_label_set(str(label_table))
    reading = choose(table, structures)
    scans = catalog(labelled, labelled_images, labelled_labels)
    more = [] if unlabelled is None else catalog(unlabelled, unlabelled_images)
    if within_scan:
        scans, more, reading = _slabs(scans, more, table, reading, out / "slabs")
    all_labelled = prepared_and_told(scans, out / "prepared" / "labelled", reading, preparation, jobs)
    subjects = sorted(set(all_labelled.subjects))
    if within_scan:
        parts = {part: tuple(one for one in subjects if one.endswith(f"-{part}")) for part in _PARTS}
    else:
        _require_subjects(len(subjects), labelled)
        parts = split_study(subjects, split, test_count, validation_count, 1, split_seed)
    pool, validation, test = (all_labelled.select(parts[part]) for part in _PARTS)
    sources = scans_to_pretrain_on(more, scans, parts)
    images = prepared_and_told(sources, out / "prepared" / "images", None, preparation, jobs)
    for trained in (pool, images):
        check_no_leak({"training": trained, "validation": validation, "test": test})

    tested = [scan for scan in scans if scan.name in test.scans]
    data = StudyData(images, None, pool, validation, test, tested, reading)
    plan = replace(plan, counts=(len(set(pool.subjects)),))
    trainer = EfficiencyTrainer(out, plan, data)
    trainer.check()
    results = out / "results"
    save_split(results / "split.json", parts)
    print(
        f"One pretraining and {2 * len(seeds)} fine-tunings, about {trainer.expected_minutes():.0f} minutes on this "
        "machine, scoring left out."
    )
    tracker, book = open_tracker(out, "ct"), out / "runs.json"
    tables: dict[str, list[pd.DataFrame]] = {named(arm): [] for arm in trainer.arms}
    with continued_run(tracker, book, "ct, within one scan" if within_scan else "ct") as parent:
        parent.log_params(
            {
                "labelled": all_labelled.fingerprint,
                "images": images.fingerprint,
                "structures": " ".join(reading.target.names),
                "split": {name: " ".join(map(hashed, members)) for name, members in parts.items()},
                "preparation": asdict(preparation),
                "within_scan": within_scan,
            }
        )
        with continued_run(tracker, book, f"{method}, pretraining", parent) as child:
            pretrained = trainer.pretrain(method, child)
        for seed in seeds:
            for arm in trainer.arms:
                with continued_run(tracker, book, f"{arm}, seed {seed}", parent) as child:
                    tables[named(arm)].append(trainer.finetune(arm, parts["pool"], seed, child))
        scores = {arm: pd.concat(of_arm, ignore_index=True) for arm, of_arm in tables.items()}
        arms = (named(SCRATCH), named(method))
        found = compare(scores[arms[0]], scores[arms[1]], names=arms)
        examples = {
            arm: trainer.folder(arm, len(parts["pool"]), seeds[0]) / "test" / f"{tested[0].name}_qc.png"
            for arm in trainer.arms
        }
        told = [_slabs_were(plan)] if within_scan else how_it_was_measured(plan, data) + what_is_not_known(plan, data)
        first = Section("Read this first", "\n\n".join([_ONE_SCAN, _WEAK] if within_scan else [_WEAK]))
        parts_of_page = [
            first,
            _compared(found, scores, reading.target, results / "pictures"),
            *(Section(f"One test scan, {named(arm)}", "", None, [picture]) for arm, picture in examples.items()),
            Section("Pretraining", "", None, [pretrained / "pretraining.png"]),
            Section("How it was measured, and what is not known", "\n\n".join(told)),
        ]
        html_report("Organs in CT", parts_of_page, results / "report.html")
        write_table(results / "scores.csv", pd.concat([one.assign(arm=arm) for arm, one in scores.items()]))
        write_table(results / "comparison.csv", found.table)
        parent.log_table(found.table, "comparison")
        parent.log_folder(results / "pictures", "pictures")
        parent.log_file(results / "report.html")
    show(rich_table(arms_cells(scores), "Dice on the test scans, mean ± sd over subjects", found.notes))
    print("\n".join([_ONE_SCAN, _WEAK] if within_scan else [_WEAK]))
    print(f"Report: {results / 'report.html'}\nMLflow: {ui_command(out)}")
    return scores


def _slabs(
    scans: Sequence[Scan], more: Sequence[Scan], table: LabelSet, reading: Protocol, out: Path
) -> tuple[list[Scan], list[Scan], Protocol]:
    """Cut the only labelled scan into parts; returns them, the other scans, and what both ends show."""
    labelled = [scan for scan in scans if scan.label]
    if len(labelled) != 1:
        raise InputError(
            f"within_scan is for one labelled scan, here are {len(labelled)}. Leave it out where there are scans of "
            f"{len(_PARTS)} subjects or more, or choose one scan with --labelled_images and --labelled_labels."
        )
    parts = cut_into_slabs(labelled[0], out)
    both = choose(table, structures_of_each([parts["pool"], parts["test"]], reading))
    return list(parts.values()), others_than(labelled[0], more), both


def _slabs_were(plan: StudyPlan) -> str:
    shares = ", ".join(f"{part} {low:.0%} to {high:.0%}" for part, (low, high) in SLABS.items())
    return (
        f"Parts of the scan's height from the feet up, with a gap at each cut: {shares}; pretrained on the pool and on "
        f"the unlabelled scans of other subjects for {plan.pretrain_steps} steps. Both arms: {plan.finetune_steps} "
        "steps; the weights after the last one were tested."
    )


def _require_subjects(count: int, source: Path) -> None:
    """Refuse a test by subject where there are no subjects for it."""
    if count < len(_PARTS):
        raise InputError(
            f"{source}: has labelled scans of {count} subject{'s' if count > 1 else ''} that can be used. A test on "
            f"other subjects than trained on needs {len(_PARTS)} at least: one each to train on, to watch and to test. "
            "Label more scans; or, to see the pipeline run on one scan and learn nothing about other patients, pass "
            "--within_scan true."
        )


def _compared(found: Comparison, scores: dict[str, pd.DataFrame], label_set: LabelSet, pictures: Path) -> Section:
    """Draw both arms' scores; returns their part of the page."""
    drawn = [pictures / "arms.png", pictures / "dice_boxplot.png"]
    arms_picture(scores, drawn[0])
    dice_boxplot(scores, drawn[1], label_set)
    title = f"{found.other} against {found.baseline}".capitalize()
    return Section(title, "\n\n".join(found.notes), comparison_cells(found), drawn)
