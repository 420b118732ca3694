"""COLMAP's incremental structure from motion, in three steps that each go on where they stopped.

Schönberger, Frahm, "Structure-from-Motion Revisited", CVPR 2016, through pycolmap. The same frames and seed give the
same result on any number of threads: pictures get their numbers before features are looked for, each pair draws its own
random numbers, and the mapping itself, whose sums would depend on it, runs on one thread.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from medssl.data.camera import Camera
from medssl.extras import require_module
from medssl.files import write_aside
from medssl.structure_from_motion.lens import colmap_parameters, guessed_parameters
from medssl.structure_from_motion.settings import Features, LensModel, Mapping, Matching

logger = logging.getLogger(__name__)

LEAST_FRAMES = 3  # of a sub-model: two tell nothing of how good they are

_PREFIX = re.compile(r"^[WEF]\d{8} \S+ +\d+ ([^:]+):\S+\] ")
_SOLVER = ("levenberg_marquardt_strategy.cc", "trust_region_minimizer.cc")  # a rejected step, which is tried again
_WARNING, _NOTHING = 1, 4  # glog's levels: from this one on


class Matches(NamedTuple):
    """What was found of a set of pictures.

    Attributes:
        features: Number in each picture, by its name.
        pairs: Pairs of pictures that show the same, each with the number of its matches.
    """

    features: dict[str, int]
    pairs: dict[tuple[str, str], int]


def extract_features(
    database: Path,
    pictures: Path,
    masks: Path,
    names: list[str],
    camera: Camera | LensModel,
    view: tuple[float, float, float],
    features: Features,
    threads: int,
    seed: int,
) -> None:
    """Find features in all pictures; those that have some in the database are left alone.

    Args:
        database: COLMAP's, made where it is missing.
        pictures: Folder of the pictures.
        masks: Folder of their masks, ``<picture>.png``.
        names: Of the pictures, in order of time.
        camera: Intrinsics of the pictures, or the model whose intrinsics are to be estimated.
        view: Diameter and centre (x, y) of the field of view in the pictures, where the estimate begins.
        features: How they are looked for.
        threads: Pictures at a time.
        seed: Of what is drawn.
    """
    pycolmap = require_module("pycolmap", "endoscopy")
    reading = pycolmap.ImageReaderOptions()
    reading.mask_path = str(masks)
    model, parameters = (
        colmap_parameters(camera) if isinstance(camera, Camera) else (camera, guessed_parameters(camera, *view))
    )
    reading.camera_model, reading.camera_params = model, ",".join(f"{value:.17g}" for value in parameters)
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.num_threads = threads
    extraction.sift.peak_threshold = features.peak_threshold
    extraction.sift.max_num_features = features.most
    single = pycolmap.CameraMode.SINGLE
    with quiet():
        pycolmap.set_random_seed(seed)
        if not database.exists():
            with TemporaryDirectory(dir=database.parent) as folder:  # a database that exists knows all pictures
                made = Path(folder) / database.name
                pycolmap.Database.open(made).close()
                pycolmap.import_images(made, pictures, single, names, reading)
                made.replace(database)
        pycolmap.extract_features(database, pictures, names, single, reading, extraction, device=pycolmap.Device.cpu)


def match_features(database: Path, matching: Matching, threads: int, seed: int) -> None:
    """Compare the features of pairs of pictures; pairs that were compared are left alone.

    Args:
        database: With the features of the pictures.
        matching: Which pairs.
        threads: Pairs at a time.
        seed: Of what is drawn.
    """
    pycolmap = require_module("pycolmap", "endoscopy")
    options, geometry = pycolmap.FeatureMatchingOptions(), pycolmap.TwoViewGeometryOptions()
    options.num_threads = threads
    geometry.ransac.random_seed, geometry.ransac.max_error = seed, matching.max_error_px
    geometry.detect_watermark = False  # a still camera's matches look like one
    cpu = pycolmap.Device.cpu
    with quiet():
        pycolmap.set_random_seed(seed)
        if matching.pairs == "exhaustive":
            pycolmap.match_exhaustive(database, options, verification_options=geometry, device=cpu)
            return
        pairing = pycolmap.SequentialPairingOptions()
        pairing.overlap, pairing.quadratic_overlap, pairing.num_threads = matching.overlap, True, threads
        pycolmap.match_sequential(database, options, pairing, geometry, device=cpu)


def map_frames(database: Path, pictures: Path, out: Path, mapping: Mapping, calibrated: bool, seed: int) -> list[Any]:
    """Place cameras and points; gives sub-models (``pycolmap.Reconstruction``), that of the most frames first.

    Args:
        database: With features and matches.
        pictures: Folder of the pictures.
        out: Folder of the sub-models; where it is there already, they are read.
        mapping: When a camera or a point is trusted.
        calibrated: Whether the intrinsics are known, and stay as they are.
        seed: Of what is drawn.
    """
    pycolmap = require_module("pycolmap", "endoscopy")
    if not out.is_dir():
        with write_aside(out) as aside, quiet():
            aside.mkdir()
            pycolmap.set_random_seed(seed)
            pycolmap.incremental_mapping(database, pictures, aside, _options(mapping, calibrated, seed))
    found = [pycolmap.Reconstruction(folder) for folder in sorted(out.iterdir()) if folder.is_dir()]
    models = [model for model in found if model.num_reg_images() >= LEAST_FRAMES]  # COLMAP may leave a smaller one
    return sorted(models, key=lambda model: (-model.num_reg_images(), -model.num_points3D()))


def fit(model: Any, max_error_px: float) -> float:
    """How much a model explains: each observation counts 1 where it is exact, and 0 from ``max_error_px`` on.

    The score of MSAC: Torr, Zisserman, "MLESAC: a new robust estimator with application to estimating image geometry",
    Computer Vision and Image Understanding 2000; here of each point's mean error.
    """
    points = model.points3D.values()
    return float(sum(point.track.length() * max(0.0, 1 - (point.error / max_error_px) ** 2) for point in points))


def _options(mapping: Mapping, calibrated: bool, seed: int) -> Any:
    pycolmap = require_module("pycolmap", "endoscopy")
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads, options.random_seed, options.extract_colors = 1, seed, False
    options.min_model_size, options.min_num_matches = LEAST_FRAMES, mapping.min_inliers
    options.ba_refine_focal_length = options.ba_refine_extra_params = not calibrated
    mapper, points = options.mapper, options.triangulation
    mapper.random_seed = points.random_seed = seed
    mapper.abs_pose_refine_focal_length = mapper.abs_pose_refine_extra_params = not calibrated
    mapper.init_min_tri_angle, mapper.abs_pose_min_num_inliers = mapping.first_angle_deg, mapping.min_inliers
    mapper.filter_min_tri_angle = points.min_angle = mapping.min_angle_deg
    mapper.filter_max_reproj_error = mapping.max_error_px
    points.merge_max_reproj_error = points.complete_max_reproj_error = mapping.max_error_px
    return options


def read_matches(database: Path) -> Matches:
    """Tell how many features and matches a database holds."""
    pycolmap = require_module("pycolmap", "endoscopy")
    stored = pycolmap.Database.open(database)
    try:
        names = {image.image_id: image.name for image in stored.read_all_images()}
        features = {name: stored.num_keypoints_for_image(number) for number, name in names.items()}
        found, counts = stored.read_two_view_geometry_num_inliers()
        pairs = {}
        for pair, count in zip(found, counts, strict=True):
            a, b = pair if isinstance(pair, tuple) else pycolmap.pair_id_to_image_pair(pair)
            pairs[names[a], names[b]] = int(count)
    finally:
        stored.close()
    return Matches(features, pairs)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep COLMAP's running commentary from the terminal; each distinct warning is logged once, with its count."""
    pycolmap = require_module("pycolmap", "endoscopy")
    log = pycolmap.logging
    before = log.minloglevel, log.stderrthreshold, log.alsologtostderr
    with TemporaryDirectory() as folder:
        log.minloglevel, log.stderrthreshold, log.alsologtostderr = _WARNING, _NOTHING, False
        log.set_log_destination(log.Level.WARNING, str(Path(folder) / "warnings"))
        try:
            yield
        finally:
            log.set_log_destination(log.Level.WARNING, "")
            log.minloglevel, log.stderrthreshold, log.alsologtostderr = before
            for text, count in _warnings(Path(folder)).items():
                logger.warning("COLMAP: %s%s", text, f" ({count} times)" if count > 1 else "")


def _warnings(folder: Path) -> Counter[str]:
    lines = [line for path in sorted(folder.iterdir()) for line in path.read_text(errors="replace").splitlines()]
    found = [(match[1], line[match.end() :]) for line in lines if (match := _PREFIX.match(line))]
    return Counter(text for source, text in found if source not in _SOLVER)
