"""Label the validation scans by registering training scans to them, and score it; a row per kind of registration.

Run: python -m benchmarks.atlas MANUAL [--atlases 5]. The split is that of ``medssl run brain_segmentation``; test scans
are not touched.
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

from jsonargparse import auto_cli

from medssl.data.catalog import catalog
from medssl.data.splits import split_subjects
from medssl.evaluation.segmentation import Pair, evaluate_pairs
from medssl.evaluation.tables import OVERALL, summary
from medssl.labels.atlas import Deformable
from medssl.labels.lut import label_set
from medssl.labels.protocols import protocol
from medssl.labels.weak import weak_labels_from_atlases


def main(manual: Path, atlases: int = 5) -> None:
    """Register, vote by majority, score on the validation scans' own grids.

    Args:
        manual: Scans that a person labelled, with Neuromorphometrics' numbers.
        atlases: Training scans that are registered to each.
    """
    structures = label_set("freesurfer-27")
    reading = protocol("neuromorphometrics", structures)
    scans = {scan.name: scan for scan in catalog(manual)}
    counts = {"test": 5, "validation": 2, "train": atlases}
    parts = split_subjects(sorted({scan.subject for scan in scans.values()}), counts, 0)
    train, validation = ([scan for scan in scans.values() if scan.subject in parts[p]] for p in ("train", "validation"))
    for deformable in (None, *get_args(Deformable)):
        with TemporaryDirectory() as folder:
            begin = time.perf_counter()
            made = weak_labels_from_atlases(
                validation, train, Path(folder), structures, deformable=deformable, jobs=1, progress=False
            )
            seconds = (time.perf_counter() - begin) / (len(train) * len(validation))
            pairs = [
                Pair(scan.name, scan.subject, scan.label, scans[scan.name].label)
                for scan in catalog(made.out)
                if scan.label is not None
            ]
            means = summary(evaluate_pairs(pairs, reading).scores).set_index("structure")["dice_mean"]
        worst = means.drop(OVERALL).nsmallest(5).mean()
        kind = deformable or "affine alone"
        print(f"{kind:12}  Dice {means[OVERALL]:.3f}, five worst {worst:.3f}, {seconds:.1f} s per pair", flush=True)


if __name__ == "__main__":
    auto_cli(main)
