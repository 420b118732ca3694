"""What structure from motion is asked to do: which frames, which features, which matches, and when to trust a point."""

from dataclasses import dataclass
from typing import Literal

from medssl.errors import InputError

LensModel = Literal["SIMPLE_RADIAL", "OPENCV"]


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise InputError(f"{otherwise}.")


@dataclass(frozen=True)
class FrameChoice:
    """Which frames of a video are looked at, and which of those are used.

    Args:
        every: Look at every n-th frame.
        motion: Use a frame once the picture has moved by this share of its width since the last used one; 0 uses all.
            Noise alone gives less than 0.0001.
        start_s: Where to begin, seconds from the first frame (the number of a frame in a folder of pictures).
        end_s: Where to end; ``None`` for the end of the video.
        most: Refuse to use more frames than this, rather than to run for days.
    """

    every: int = 1
    motion: float = 0.001
    start_s: float = 0.0
    end_s: float | None = None
    most: int = 1000

    def __post_init__(self) -> None:
        """Refuse a choice that no video could satisfy."""
        _require(self.every >= 1, f"choice.every must be at least 1, got {self.every}")
        _require(self.motion >= 0, f"choice.motion must be at least 0, got {self.motion:g}")
        _require(self.most >= 3, f"choice.most must be at least 3, got {self.most}")
        if self.end_s is not None:
            ends = f"got {self.start_s:g} and {self.end_s:g}"
            _require(self.end_s > self.start_s, f"choice.end_s must be after choice.start_s, {ends}")


@dataclass(frozen=True)
class Features:
    """How points that can be found again are looked for (SIFT).

    Mucosa is smooth: with COLMAP's own threshold on a feature's contrast, twice as high, most of it has no features.

    Args:
        longest_side: Pictures are reduced to this many pixels, which takes away noise; smaller ones stay as they are.
        peak_threshold: Least contrast of a feature; lower finds more, and less certain ones.
        equalise: Clip limit of the local equalisation of contrast before features are looked for; 0 for none.
        most: Features of one frame at most.
    """

    longest_side: int = 960
    peak_threshold: float = 0.003
    equalise: float = 0.0
    most: int = 8192

    def __post_init__(self) -> None:
        """Refuse what would find nothing."""
        _require(self.longest_side >= 64, f"features.longest_side must be at least 64, got {self.longest_side}")
        _require(self.peak_threshold > 0, f"features.peak_threshold must be above 0, got {self.peak_threshold:g}")
        _require(0 <= self.equalise <= 1, f"features.equalise must be between 0 and 1, got {self.equalise:g}")
        _require(self.most >= 100, f"features.most must be at least 100, got {self.most}")


@dataclass(frozen=True)
class Matching:
    """Which frames are compared.

    Args:
        pairs: "sequential" compares each frame with those 1, 2, 4, 8, ... used frames later; "exhaustive" compares all
            with all: for up to some 60 frames that come back to a place.
        overlap: How many later frames each is compared with.
        max_error_px: Of a match to the two cameras' epipolar geometry, in the reduced picture.
    """

    pairs: Literal["sequential", "exhaustive"] = "sequential"
    overlap: int = 10
    max_error_px: float = 4.0

    def __post_init__(self) -> None:
        """Refuse what would match nothing."""
        _require(self.overlap >= 1, f"matching.overlap must be at least 1, got {self.overlap}")
        _require(self.max_error_px > 0, f"matching.max_error_px must be above 0, got {self.max_error_px:g}")


@dataclass(frozen=True)
class Mapping:
    """When a camera or a point is trusted.

    Args:
        attempts: Times that all is mapped anew with other random numbers; the best is kept. Of a camera that moves
            little, one scene in ten comes out inside out: that looks nearly the same from there, but fits less well.
        first_angle_deg: Angle between the rays of the first two frames. COLMAP halves it where no pair has it.
        min_angle_deg: Least angle between two rays of a point.
        min_inliers: Least points by which a further frame is placed.
        max_error_px: Of a point's reprojection, in the reduced picture.
    """

    attempts: int = 3
    first_angle_deg: float = 16.0
    min_angle_deg: float = 1.0
    min_inliers: int = 15
    max_error_px: float = 4.0

    def __post_init__(self) -> None:
        """Refuse what would place nothing."""
        _require(self.attempts >= 1, f"mapping.attempts must be at least 1, got {self.attempts}")
        _require(0 < self.first_angle_deg < 90, f"mapping.first_angle_deg is 0 to 90, got {self.first_angle_deg:g}")
        _require(0 < self.min_angle_deg < 90, f"mapping.min_angle_deg is 0 to 90, got {self.min_angle_deg:g}")
        _require(self.min_inliers >= 6, f"mapping.min_inliers must be at least 6, got {self.min_inliers}")
        _require(self.max_error_px > 0, f"mapping.max_error_px must be above 0, got {self.max_error_px:g}")


@dataclass(frozen=True)
class Settings:
    """All that a reconstruction depends on beside the video, its mask and its intrinsics."""

    choice: FrameChoice = FrameChoice()
    features: Features = Features()
    matching: Matching = Matching()
    mapping: Mapping = Mapping()
    seed: int = 0
