"""Structure from motion for endoscopy: from a video to camera poses and points, with pycolmap.

Up to scale, as of one camera it must be. See ``from_video.reconstruct``.
"""

from medssl.structure_from_motion.from_video import reconstruct
from medssl.structure_from_motion.outcome import Outcome, reprojection_errors
from medssl.structure_from_motion.settings import Features, FrameChoice, LensModel, Mapping, Matching, Settings

__all__ = [
    "Features",
    "FrameChoice",
    "LensModel",
    "Mapping",
    "Matching",
    "Outcome",
    "Settings",
    "reconstruct",
    "reprojection_errors",
]
