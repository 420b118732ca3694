"""One recording through a method of correspondence: masks or points of every frame, scores, pictures and a page."""

import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from medssl.data.sequence import Frames
from medssl.errors import InputError
from medssl.evaluation.tables import write_table
from medssl.files import write_json
from medssl.memory import peak_memory_mib
from medssl.object_tracking.comparison import Comparison, compare, comparison_picture, readable, table_of, verdict
from medssl.object_tracking.followers import ByLikeness, Followed, Follower
from medssl.object_tracking.given import Given, Objects
from medssl.object_tracking.mask_files import load_mask
from medssl.object_tracking.pictures import over_time_picture
from medssl.object_tracking.results import CONFIDENCE, MASKS, POINTS, Results, write_mask_volume, write_overlay
from medssl.object_tracking.truth import Truth, follow_both_ways
from medssl.report.page import Section, html_report
from medssl.stages import Summary
from medssl.tracking import RunLike

SUMMARY = "summary.json"

_FILES = (
    SUMMARY,
    POINTS,
    CONFIDENCE,
    "masks.nii.gz",
    "overlay.mp4",
    "metrics.csv",
    "metrics_summary.csv",
    "report.html",
)
_FOLDERS = (MASKS, "pictures")
_SAID = 10  # damaged frames that a sentence still names
_PANELS = {"confidence": "confidence", "similarity": "similarity"}
_OBJECT_PANELS = {**_PANELS, "hidden_share": "hidden share", "area_px": "area, pixels"}


@dataclass(frozen=True)
class TrackOptions:
    """What is asked for.

    Args:
        first_frame: The frame whose labels are given, or the first of them.
        both: Whether to follow backwards from it too.
        nifti: Write all masks as one NIfTI too.
        overlay: Write the video with what was followed drawn in.
    """

    first_frame: int = 0
    both: bool = False
    nifti: bool = False
    overlay: bool = True


def check_frames(named: str, frames: Frames, options: TrackOptions) -> None:
    """Refuse what leaves nothing to follow.

    Raises:
        InputError: The recording has one frame, lacks the first one asked for, or ends with it.
    """
    count, first = len(frames), options.first_frame
    if count < 2:
        raise InputError(f"{named}: has {count} frame; things are followed through a video of at least 2.")
    if not 0 <= first < count:
        raise InputError(f"{named}: has {count} frames, counted from 0; --first_frame {first} is none of them.")
    if first == count - 1 and not options.both:
        raise InputError(f"{named}: ends with frame {first}; give --both true to follow backwards from there.")


def track_recording(
    follower: ByLikeness,
    frames: Frames,
    given: Given,
    out: Path,
    options: TrackOptions,
    run: RunLike,
    made_of: str,
    *,
    name: str = "the method",
    truth: Truth | None = None,
    others: Mapping[str, Follower] | None = None,
) -> Summary:
    """Make all results in ``out``; earlier ones are removed first, ``summary.json`` comes last.

    Args:
        follower: The method; its clock starts at 0.
        frames: Of the recording; at no time are more held than the follower embeds at once.
        given: What is followed, of ``options.first_frame``.
        out: Folder of the results.
        options: What is asked for.
        run: Where scores, tables and pictures are logged.
        made_of: What the summary says that it was made of.
        name: Of the method, in the tables.
        truth: Of some frames, to score by.
        others: What the method is compared with where there is a truth.

    Raises:
        InputError: The first frame cannot be decoded, the truth does not fit, or the disk is full.
    """
    start, clock = time.perf_counter(), follower.clock
    _remove(out)
    results = Results(out, given, frames.times)
    total = len(frames) - (0 if options.both else options.first_frame)
    followed = follow_both_ways(follower, frames, given, options.first_frame, options.both)
    for one in tqdm(followed, desc="Tracking", unit="frame", total=total, disable=None):
        with clock.measure("writing"):
            results.add(one)
    table = results.save()
    left_out: dict[str, str] = {}
    comparison = None
    if truth is not None:
        with clock.measure("scoring"):
            ways: dict[str, Follower | Iterator[Followed]] = {name: _written(table, given, out), **(others or {})}
            comparison = compare(ways, frames, given, truth, options.first_frame, options.both, out.resolve().name)
    with clock.measure("drawing"):
        pictures = _pictures(comparison, frames, given, truth, table, out)
        if options.nifti and isinstance(given, Objects):
            write_mask_volume(out, given, frames.times)
        if options.overlay:
            try:
                write_overlay(frames, out, given, table)
            except InputError as error:
                left_out["overlay.mp4"] = str(error)
    damaged = sorted(results.damaged)
    numbers = _numbers(follower, table, damaged, time.perf_counter() - start)
    sentences = _sentences(numbers, damaged, table)
    _scores(comparison, given, name, out, run, numbers, sentences)
    _page(out, sentences, left_out, numbers, comparison, given, pictures)
    _log(run, numbers, table, out)
    told = {"sentences": sentences, "left_out": left_out, "numbers": numbers, "damaged_frames": damaged}
    write_json(out / SUMMARY, told | {"made_of": made_of})
    return Summary(numbers, sentences, left_out)


def _remove(out: Path) -> None:
    """Remove earlier results, so that nothing of another run stands beside the new ones; the summary first."""
    for name in _FILES:
        (out / name).unlink(missing_ok=True)
    for name in _FOLDERS:
        shutil.rmtree(out / name, ignore_errors=True)


def _written(table: pd.DataFrame, given: Given, out: Path) -> Iterator[Followed]:
    """Read what was followed back from what was written."""
    nothing = np.zeros(0, dtype=np.float32)
    for frame, rows in table.groupby("frame"):
        index = int(str(frame))
        if isinstance(given, Objects):
            height, width = given.mask.shape
            found = load_mask(out / MASKS, index, (height, width))
        else:
            found = rows[["x", "y"]].to_numpy(dtype=np.float64)
        yield Followed(index, found, nothing, nothing, nothing)


def _pictures(
    comparison: Comparison | None, frames: Frames, given: Given, truth: Truth | None, table: pd.DataFrame, out: Path
) -> list[Path]:
    over_time = out / "pictures" / "over_time.png"
    over_time_picture(table, _OBJECT_PANELS if isinstance(given, Objects) else _PANELS, over_time)
    if comparison is None or truth is None:
        return [over_time]
    comparison_picture(comparison, frames, given, truth, out / "pictures" / "comparison.png")
    return [out / "pictures" / "comparison.png", over_time]


def _numbers(follower: ByLikeness, table: pd.DataFrame, damaged: list[int], seconds: float) -> dict[str, float]:
    frames, network = table["frame"].nunique(), follower.clock.seconds.get("network", 0.0)
    numbers = {"frames": float(frames), "damaged_frames": float(len(damaged))}
    numbers |= {"mean_confidence": float(table["confidence"].mean()), "hidden_share": float(table["hidden"].mean())}
    numbers |= {f"seconds/{what}": spent for what, spent in follower.clock.seconds.items()}
    numbers |= {"seconds/all": seconds, "frames_per_second/network": frames / max(network, 1e-9)}
    numbers |= {"frames_per_second/all": frames / seconds, "network_share_of_time": network / seconds}
    if (peak := peak_memory_mib()) is not None:
        numbers["peak_memory_mib"] = peak
    return numbers


def _sentences(numbers: dict[str, float], damaged: list[int], table: pd.DataFrame) -> list[str]:
    who = "object" if "object" in table else "name"
    each = table.groupby(who, sort=False)["hidden"].mean()
    said = [
        f"Followed through {numbers['frames']:.0f} frames: {len(each)} {'object' if who == 'object' else 'point'}"
        f"{'s' * (len(each) > 1)}, hidden or lost in {numbers['hidden_share']:.1%} of them."
    ]
    if damaged:
        some = ", ".join(map(str, damaged[:_SAID])) + (", ..." if len(damaged) > _SAID else "")
        said.append(
            f"Of these frames, {len(damaged)} cannot be decoded (frame {some}): everything counts as hidden there, and "
            "keeps the labels of the frame before."
        )
    if who == "object" and (small := _too_small(table)):
        said.append(f"Object {', '.join(small)} was lost at once; it may be smaller than the network's cells.")
    speed = (
        f"{numbers['frames_per_second/network']:.3g} frames per second through the network, "
        f"{numbers['frames_per_second/all']:.3g} with all results; the network took "
        f"{numbers['network_share_of_time']:.0%} of {numbers['seconds/all']:.0f} s"
    )
    peak = f"; at most {numbers['peak_memory_mib']:.0f} MiB of memory." if "peak_memory_mib" in numbers else "."
    return [*said, speed + peak]


def _too_small(table: pd.DataFrame) -> list[str]:
    """Objects that are followed in several frames, and found in one alone, the one in which they were given."""
    frames = table.assign(found=table["area_px"] > 0).groupby("object")["found"].agg(["sum", "size"])
    return [str(thing) for thing in frames.index[(frames["sum"] < 2) & (frames["size"] > 1)]]


def _scores(
    comparison: Comparison | None,
    given: Given,
    name: str,
    out: Path,
    run: RunLike,
    numbers: dict[str, float],
    sentences: list[str],
) -> None:
    """Write and log the scores, and put them before what else is said."""
    if comparison is None:
        return
    table = table_of(comparison.rows, given)
    write_table(out / "metrics.csv", comparison.rows)
    write_table(out / "metrics_summary.csv", table)
    run.log_table(comparison.rows, "metrics")
    run.log_table(table, "metrics_summary")
    for row in table.to_dict("records"):
        numbers |= {f"{row['method']}/{key}": value for key, value in row.items() if key != "method"}
    sentences[:0] = verdict(table, name)


def _page(
    out: Path,
    sentences: list[str],
    left_out: dict[str, str],
    numbers: dict[str, float],
    comparison: Comparison | None,
    given: Given,
    pictures: list[Path],
) -> None:
    """Write ``report.html``."""
    sections = [Section("What came out", "\n\n".join(sentences))]
    if comparison is not None:
        text = (
            "Means and standard deviations over the objects, of the frames whose truth is known but for the first one. "
            "J is the overlap of regions, F the agreement of contours within 0.8 % of the picture's diagonal."
            if isinstance(given, Objects)
            else "Means and standard deviations over the points, of the frames whose truth is known but for the first "
            "one. PCK is the share of points within 10 and 20 % of the longer side of the box around the first points."
        )
        sections.append(Section("Scores", text, readable(table_of(comparison.rows, given)), pictures[:-1]))
    text = (
        "Confidence is how much the votes of like cells agree, similarity that of the most alike cell. What looks like "
        "nothing known counts as hidden. Lines begin where something is marked; gaps are frames that cannot be decoded."
    )
    links = {"The video with what was followed": "overlay.mp4"} if (out / "overlay.mp4").is_file() else {}
    sections.append(Section("Over time", text, None, pictures[-1:], links))
    sections.append(Section("Left out", "\n\n".join(f"{what}: {why}" for what, why in left_out.items()) or "Nothing."))
    rows = pd.DataFrame({"what": list(numbers), "value": list(numbers.values())})
    html_report("What was followed", [*sections, Section("Numbers", "", rows)], out / "report.html")


def _log(run: RunLike, numbers: dict[str, float], table: pd.DataFrame, out: Path) -> None:
    run.log_metrics({name: value for name, value in numbers.items() if np.isfinite(value)}, 0)
    run.log_table(table, "confidence" if "object" in table else "points")
    run.log_folder(out / "pictures", "pictures")
    run.log_file(out / "report.html")
