"""How many labels does pretraining save? One command pretrains, fine-tunes on few labels, tests, and says it.

The question of Hénaff et al., "Data-Efficient Image Recognition with Contrastive Predictive Coding", ICML 2020,
https://arxiv.org/abs/1905.09272, figure 1, asked of scans.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from medssl.data.catalog import FREESURFER_LABELS, catalog
from medssl.data.preparation import Preparation
from medssl.data.splits import check_no_leak, save_split
from medssl.efficiency_attempts import PRETRAINING, Attempts
from medssl.efficiency_study import (
    StudyData,
    StudyPlan,
    draw_subsets,
    scans_to_pretrain_on,
    split_study,
    weakly_labelled,
)
from medssl.efficiency_training import EfficiencyTrainer
from medssl.evaluation.efficiency import complete, efficiency_cells, gains_over_scratch, learning_curve, verdict
from medssl.evaluation.printing import rich_table, show
from medssl.evaluation.tables import write_table
from medssl.files import write_json
from medssl.labels.lut import label_set as find_label_set
from medssl.labels.protocols import protocol
from medssl.networks import encoder_parameters
from medssl.pretrain import PretrainRecipe
from medssl.report.efficiency import efficiency_page
from medssl.stages import continued_run, prepared_and_told
from medssl.tracking import hashed, open_tracker, ui_command
from medssl.train_segmentation import Recipe


def run(
    unlabelled: Path,
    labelled: Path,
    out: Path,
    *,
    methods: Sequence[str] = ("masked_autoencoder", "simclr"),
    counts: Sequence[int] = (1, 2, 5, 10),
    seeds: Sequence[int] = (0, 1, 2),
    unlabelled_images: str | None = None,
    unlabelled_labels: str | None = None,
    labelled_images: str | None = None,
    labelled_labels: str | None = None,
    reading: str = "neuromorphometrics",
    weak_reading: str | None = None,
    label_set: str = "freesurfer-27",
    preparation: Preparation = Preparation(),
    split: Path | None = None,
    split_seed: int = 0,
    validation_count: int = 2,
    test_count: int = 5,
    network: str = "unet",
    network_arguments: dict[str, Any] | None = None,
    method_arguments: dict[str, dict[str, Any]] | None = None,
    pretraining: PretrainRecipe = PretrainRecipe(patience=None),
    pretrain_steps: int = 2000,
    recipe: Recipe = Recipe(),
    finetune_steps: int = 1000,
    probe_steps: int = 300,
    jobs: int = -1,
) -> pd.DataFrame:
    """Pretrain with each method, fine-tune on 1, 2, 5, ... labelled subjects, test, and compare with no pretraining.

    Started again with the same arguments it goes on where it was stopped, and does nothing twice. A method that fails
    stops none of the others: it is named, with the reason, in every result and at the end, and tried again when the
    study is started again.

    Args:
        unlabelled: Scans to pretrain on; may be the labelled ones' folder. The pool's images are added, and scans of
            test and validation subjects kept out. Where they have weak labels, pretraining on these is one arm more.
        labelled: Scans that a person labelled, to test on, to validate on, and to draw the few from.
        out: Folder of all results: the page results/report.html, the encoders under pretraining, the models under
            trainings, and the MLflow store.
        methods: Of pretraining, see ``medssl methods``; training from scratch is always compared.
        counts: Numbers of labelled subjects to fine-tune on.
        seeds: One subset of each number and one fine-tuning per seed; the same subsets for every method.
        unlabelled_images: Pattern of the images in ``unlabelled``, where its layout is not one that is found out.
        unlabelled_labels: Pattern of their weak label maps.
        labelled_images: Pattern of the images in ``labelled``.
        labelled_labels: Pattern of the label maps in ``labelled``.
        reading: How the numbers in the manual labels are read: neuromorphometrics, aseg, aparc+aseg, or same.
        weak_reading: The same for weak labels of the unlabelled scans; in a SUBJECTS_DIR it is also the file that is
            read, by default aparc+aseg. In other layouts there are no weak labels unless this says how to read them.
        label_set: The structures to learn: freesurfer-27, freesurfer-32, or a file in FreeSurfer's LUT format.
        preparation: How the scans are prepared.
        split: A JSON file with the labelled subjects: {"test": [...], "validation": [...], "pool": [...]}. By default
            they are drawn.
        split_seed: Of that draw, of the subsets' and of the pretraining.
        validation_count: Labelled subjects that are watched while training; nothing is chosen by them.
        test_count: Labelled subjects to test on; under 5 there is no p-value.
        network: Name of the segmentation network, whose encoder is pretrained; see ``medssl networks``.
        network_arguments: Its own arguments, of all arms; by default group normalisation where it has the choice, see
            ``medssl pretrain``.
        method_arguments: Own arguments of methods, by the method's name.
        pretraining: How a method is trained.
        pretrain_steps: Steps of each pretraining.
        recipe: How every arm is fine-tuned, and weak labels are pretrained on.
        finetune_steps: Steps of each fine-tuning, whatever the arm and the number of labels.
        probe_steps: Steps of the linear probe of each frozen encoder.
        jobs: Processes that prepare; -1 is one per core.

    Returns:
        The long table of all test scores, with the columns arm, labels and seed.

    Raises:
        InputError: An argument cannot be used, or no scan can; training from scratch failed, or all pretraining did.
            Or, after all results are written, a part of the study failed.
    """
    if network_arguments is None:
        network_arguments = {"norm": "group"} if "norm" in encoder_parameters(network) else {}
    plan = StudyPlan(
        tuple(methods),
        method_arguments or {},
        tuple(sorted(counts)),
        tuple(seeds),
        network,
        network_arguments,
        pretraining,
        pretrain_steps,
        recipe,
        finetune_steps,
        split_seed,
        probe_steps,
    )
    manual = protocol(reading, find_label_set(label_set))
    scans = {scan.name: scan for scan in catalog(labelled, labelled_images, labelled_labels)}
    all_labelled = prepared_and_told(list(scans.values()), out / "prepared" / "labelled", manual, preparation, jobs)
    parts = split_study(all_labelled.subjects, split, test_count, validation_count, max(counts), split_seed)
    pool, validation, test = (all_labelled.select(parts[name]) for name in ("pool", "validation", "test"))
    subsets = draw_subsets(parts["pool"], plan.counts, plan.seeds, split_seed)

    file_read = weak_reading if weak_reading in FREESURFER_LABELS else FREESURFER_LABELS[0]
    found = catalog(unlabelled, unlabelled_images, unlabelled_labels, freesurfer_labels=file_read)
    sources = scans_to_pretrain_on(found, list(scans.values()), parts)
    images = prepared_and_told(sources, out / "prepared" / "images", None, preparation, jobs)
    weak_scans, weak = weakly_labelled(found, list(scans.values()), parts, weak_reading), None
    if weak_scans:
        read = protocol(weak_reading or str(weak_scans[0].protocol), manual.target)
        weak = prepared_and_told(weak_scans, out / "prepared" / "weak", read, preparation, jobs)
    check_no_leak({"pool": pool, "validation": validation, "test": test})
    for part in (images, *([weak] if weak is not None else [])):
        check_no_leak({"pretraining": part, "validation": validation, "test": test})

    data = StudyData(images, weak, pool, validation, test, [scans[name] for name in test.scans], manual)
    trainer = EfficiencyTrainer(out, plan, data)
    trainer.check()
    print(
        f"Pretrainings: {len(trainer.arms) - 1}; fine-tunings: {len(trainer.arms) * len(subsets)}; about "
        f"{trainer.expected_minutes():.0f} minutes on this machine, scoring left out."
    )
    results = out / "results"
    save_split(results / "split.json", parts)
    write_json(results / "subsets.json", {f"{n} labels, seed {seed}": who for (n, seed), who in subsets.items()})
    tracker, book = open_tracker(out, "label_efficiency"), out / "runs.json"
    with continued_run(tracker, book, "label_efficiency") as parent:
        parent.log_params(
            {
                "labelled": all_labelled.fingerprint,
                "images": images.fingerprint,
                "weak": None if weak is None else weak.fingerprint,
                "label_set": manual.target.name,
                "split": {name: " ".join(map(hashed, members)) for name, members in parts.items()},
                "preparation": preparation.to_dict(),
            }
        )
        attempts = Attempts(lambda name: continued_run(tracker, book, name, parent), data.names)
        for arm in trainer.arms[1:]:
            with attempts.run(arm, PRETRAINING) as child:
                trainer.pretrain(arm, child)
        tables = []
        for (labels, seed), subjects in subsets.items():
            for arm in attempts.left(trainer.arms):
                with attempts.run(arm, f"{labels} labels, seed {seed}") as child:
                    tables.append(trainer.finetune(arm, subjects, seed, child))
        scores = complete(pd.concat(tables, ignore_index=True))
        attempts.refuse_scratch_alone(scores["arm"])
        curve, gains = learning_curve(scores), gains_over_scratch(scores)
        details = trainer.details(scores, subsets, results, attempts)
        efficiency_page(scores, curve, gains, details, results)
        failures = pd.DataFrame(attempts.failures, columns=["arm", "what", "reason"])
        for name, table in (("scores", scores), ("curve", curve), ("gains", gains), ("failures", failures)):
            write_table(results / f"{name}.csv", table)
        for name, table in (("curve", curve), ("gains", gains), ("failures", failures)):
            parent.log_table(table, name)
        parent.log_folder(results / "pictures", "pictures")
        parent.log_file(results / "report.html")
    show(rich_table(efficiency_cells(curve, gains, attempts.failures), "Dice on the test scans"))
    print("\n".join(verdict(gains, attempts.failures)))
    print(f"Report: {results / 'report.html'}\nMLflow: {ui_command(out)}")
    attempts.tell()
    return scores
