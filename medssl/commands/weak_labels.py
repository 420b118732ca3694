"""``medssl weak-labels``: scans in, automatic labels out."""

from pathlib import Path

from medssl.data.catalog import FREESURFER_LABELS, catalog
from medssl.errors import InputError
from medssl.labels.atlas import Deformable
from medssl.labels.fusion import Fusion
from medssl.labels.layouts import Layout
from medssl.labels.lut import label_set as find_label_set
from medssl.labels.protocols import protocol
from medssl.labels.quality import write_label_quality
from medssl.labels.weak import weak_labels_from_atlases, weak_labels_from_freesurfer
from medssl.report.charts import label_quality_picture


def weak_labels(
    source: Path,
    out: Path,
    *,
    images: str | None = None,
    freesurfer_labels: str = "aparc+aseg",
    atlases: Path | None = None,
    atlas_images: str | None = None,
    atlas_labels: str | None = None,
    atlas_reading: str = "neuromorphometrics",
    label_set: str = "freesurfer-27",
    deformable: Deformable | None = "demons",
    fusion: Fusion = "majority",
    working_spacing_mm: float = 2.0,
    manual: Path | None = None,
    manual_reading: str = "neuromorphometrics",
    layout: Layout = "bids",
    jobs: int = -1,
) -> None:
    """Label scans automatically: as FreeSurfer did, or by registering a few labelled scans to each.

    Parallel and resumable scan by scan. Beside the labels: a colour table, volumes, and what became of each scan.

    Args:
        source: A FreeSurfer or FastSurfer SUBJECTS_DIR; with ``atlases``, any folder of scans.
        out: Folder of the labels, which ``medssl prepare`` reads.
        images: Pattern of the images in ``source``, where its layout is not found out.
        freesurfer_labels: Which labels of a SUBJECTS_DIR: aparc+aseg or aseg.
        atlases: Folder of a few labelled scans, three to five; then they are registered to each scan.
        atlas_images: Pattern of their images, where the layout of ``atlases`` is not found out.
        atlas_labels: Pattern of their label maps; its wildcards stand for what those of ``atlas_images`` stand for.
        atlas_reading: How the numbers in them are read: neuromorphometrics, aseg, aparc+aseg, or same.
        label_set: The structures: freesurfer-27, freesurfer-32, or a file in FreeSurfer's LUT format.
        deformable: What follows the affine registration: demons, bspline, or null.
        fusion: How the atlases' labels become one: majority, local or staple.
        working_spacing_mm: Voxel size at which images are registered.
        manual: Folder of manual labels of some of the scans; then the agreement per structure is written and drawn.
        manual_reading: How the numbers in them are read.
        layout: bids, or subjects_dir.
        jobs: Processes; -1 is one per core.
    """
    structures = find_label_set(label_set)
    if freesurfer_labels not in FREESURFER_LABELS:
        raise InputError(f"freesurfer_labels is one of {', '.join(FREESURFER_LABELS)}, got '{freesurfer_labels}'.")
    scans = catalog(source, images=images, freesurfer_labels=freesurfer_labels)
    if atlases is None:
        made = weak_labels_from_freesurfer(scans, out, structures, layout=layout, jobs=jobs)
    else:
        made = weak_labels_from_atlases(
            scans,
            catalog(atlases, atlas_images, atlas_labels),
            out,
            structures,
            atlas_reading,
            fusion,
            deformable,
            working_spacing_mm,
            layout,
            jobs,
        )
    print(made.table())
    if manual is not None:
        table, refused = write_label_quality(catalog(manual), out, protocol(manual_reading, structures), layout, jobs)
        label_quality_picture(table, out / "label_quality.png")
        print(f"Agreement with manual labels: mean Dice {table['dice'].mean():.3f}, see {out / 'label_quality.png'}")
        for one in refused:
            print(f"  not compared: {one.scan}: {one.reason}")
