"""The keys a sample may hold, each with its shape, dtype and unit, and checks that name what arrived.

A *sample* is one dictionary of tensors; a *batch* has the same keys with a leading dimension B. ``*spatial`` is
(X, Y, Z) in 3D and (X, Y) in 2D, in the order of the prepared array.
"""

from dataclasses import dataclass

from torch import Tensor

from medssl.errors import InputError

Sample = dict[str, Tensor]
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Key:
    """What one entry of a batch holds: its shape after B, and its unit."""

    shape: str
    unit: str
    floating: bool = True


KEYS: dict[str, Key] = {
    "image": Key("(B, C, *spatial)", "normalised as the data's preparation says"),
    "views": Key("(B, V, C, *spatial)", "as image"),
    "clip": Key("(B, T, C, H, W)", "0 to 1; the frame that is learnt on first"),
    "right": Key("(B, T, C, H, W)", "as clip, of the second camera"),
    "valid": Key("(B, T, 1, H, W)", "1 where the picture shows the body, without highlights, else 0"),
    "right_valid": Key("(B, T, 1, H, W)", "as valid, of the second camera"),
    "frame": Key("(B, T)", "which frame of the recording", floating=False),
    "label": Key("(B, *spatial)", "class index, 0 is the background", floating=False),
    "depth": Key("(B, H, W)", "mm, or scene units where declared"),
    "pose": Key("(B, T, 4, 4)", "camera to world, as depth"),
    "intrinsics": Key("(B, 3, 3)", "pixels; the first pixel's centre is at (0, 0)"),
    "right_intrinsics": Key("(B, 3, 3)", "as intrinsics, of the second camera"),
    "right_to_left": Key("(B, 4, 4)", "from the second camera's axes to the first one's, as depth"),
    "sparse_depth": Key("(B, T, 1, H, W)", "as depth, of structure from motion's points, 0 where there is none"),
    "sparse_views": Key("(B, T, 1, H, W)", "how many frames saw that point"),
    "sound": Key("(B, N)", "amplitude, -1 to 1, of one channel, heard around the clip's first frame"),
    "other_sound": Key("(B, N)", "as sound, of another time of the same recording; a false partner for other clips"),
    "spacing": Key("(B, 3)", "mm"),
    "seed": Key("(B,)", "the sample's own stream of randomness, from (seed, epoch, index)", floating=False),
    "index": Key("(B,)", "which scan of the data set the sample is from", floating=False),
    "category": Key("(B,)", "index of the image's class, -1 where it has none", floating=False),
    "number": Key("(B,)", "of the sample, counted from the first of the training", floating=False),
}


def require(batch: Batch, *names: str) -> None:
    """Check that a batch holds the named keys, with dtypes that fit.

    Raises:
        InputError: A key is missing, or holds integers where floats are expected (or the reverse).
    """
    for name in names:
        key = KEYS[name]
        if name not in batch:
            raise InputError(
                f"The batch has no '{name}' {key.shape} ({key.unit}); it holds {', '.join(sorted(batch)) or 'nothing'}."
            )
        if batch[name].is_floating_point() != key.floating:
            expected = "floating point" if key.floating else "integers"
            raise InputError(f"'{name}' must hold {expected} ({key.unit}), got {batch[name].dtype}.")
