"""Cameras, motion and flow as pure, batched, differentiable functions: what learning from video and stereo is made of.

Maps are (B, C, H, W), depth (B, 1, H, W), pixels and flows (B, 2, H, W) with x first, in pixels; intrinsics are
(B, 3, 3) and rigid transforms (B, 4, 4). All is computed in float32 or better, also under mixed precision.
"""

from medssl.geometry.cameras import (
    backproject,
    invert,
    pixel_grid,
    project,
    relative,
    resize_intrinsics,
    rigid_from_vector,
    transform,
)
from medssl.geometry.occlusion import occlusion_by_consistency, occlusion_by_range_map, range_map
from medssl.geometry.precision import in_float32
from medssl.geometry.warping import (
    depth_from_disparity,
    depth_from_stereo,
    flow_from_depth,
    inside,
    reproject,
    sample,
    warp,
    warp_depth,
    warp_stereo,
)

__all__ = [
    "backproject",
    "depth_from_disparity",
    "depth_from_stereo",
    "flow_from_depth",
    "in_float32",
    "inside",
    "invert",
    "occlusion_by_consistency",
    "occlusion_by_range_map",
    "pixel_grid",
    "project",
    "range_map",
    "relative",
    "reproject",
    "resize_intrinsics",
    "rigid_from_vector",
    "sample",
    "transform",
    "warp",
    "warp_depth",
    "warp_stereo",
]
