"""Methods by name; one file each."""

from dataclasses import is_dataclass
from typing import Any, TypeVar, get_type_hints

from medssl.errors import InputError
from medssl.method import Method
from medssl.methods.audio_visual import AudioVisual
from medssl.methods.barlow_twins import BarlowTwins
from medssl.methods.classification import Classification
from medssl.methods.colorization import Colorization
from medssl.methods.context_prediction import ContextPrediction
from medssl.methods.cycle_walk import CycleWalk
from medssl.methods.deep_cluster import DeepCluster
from medssl.methods.detection import Detection
from medssl.methods.ego_motion import EgoMotion
from medssl.methods.exemplar import Exemplar
from medssl.methods.inpainting import Inpainting
from medssl.methods.jigsaw import Jigsaw
from medssl.methods.masked_autoencoder import MaskedAutoencoder
from medssl.methods.moco import MoCo
from medssl.methods.models_genesis import ModelsGenesis
from medssl.methods.monodepth2 import Monodepth2
from medssl.methods.optical_flow import OpticalFlow
from medssl.methods.rotation import Rotation
from medssl.methods.segmentation import Segmentation
from medssl.methods.sfm_depth import SfmDepth
from medssl.methods.simclr import SimCLR
from medssl.methods.stereo_depth import StereoDepth
from medssl.methods.video_colorization import VideoColorization
from medssl.networks.encoder import Encoder
from medssl.video_method import VideoMethod

PRETEXTS: dict[str, type[Method]] = {
    "barlow_twins": BarlowTwins,
    "colorization": Colorization,
    "context_prediction": ContextPrediction,
    "deep_cluster": DeepCluster,
    "exemplar": Exemplar,
    "inpainting": Inpainting,
    "jigsaw": Jigsaw,
    "masked_autoencoder": MaskedAutoencoder,
    "moco": MoCo,
    "models_genesis": ModelsGenesis,
    "rotation": Rotation,
    "simclr": SimCLR,
}
"""Methods that need images alone; each is built from an encoder and its own arguments."""

VIDEO: dict[str, type[VideoMethod]] = {
    "audio_visual": AudioVisual,
    "cycle_walk": CycleWalk,
    "ego_motion": EgoMotion,
    "monodepth2": Monodepth2,
    "optical_flow": OpticalFlow,
    "sfm_depth": SfmDepth,
    "stereo_depth": StereoDepth,
    "video_colorization": VideoColorization,
}
"""Methods that need clips of recordings; each is built from an encoder of pictures and its own arguments."""

METHODS: dict[str, type[Method]] = {
    **PRETEXTS,
    **VIDEO,
    "classification": Classification,
    "detection": Detection,
    "segmentation": Segmentation,
}

Built = TypeVar("Built", bound=Method)


def build_pretext(name: str, encoder: Encoder, **arguments: Any) -> Method:
    """Build a method of pretraining by name.

    Args:
        name: See ``PRETEXTS``.
        encoder: The network to pretrain.
        **arguments: The method's own; one that is a dataclass (``views``) may be given as a dictionary.

    Raises:
        InputError: There is no method of that name, or it does not take one of the arguments.
    """
    return build_method(pretext(name), encoder, **arguments)


def pretext(name: str) -> type[Method]:
    """Find a method of pretraining by name.

    Raises:
        InputError: There is none of that name.
    """
    if name not in PRETEXTS:
        raise InputError(
            f"There is no method of pretraining '{name}'. Methods: {', '.join(sorted(PRETEXTS))}; of clips of "
            f"recordings: {', '.join(sorted(VIDEO))}."
        )
    return PRETEXTS[name]


def build_video_method(name: str, encoder: Encoder, **arguments: Any) -> VideoMethod:
    """Build a method that learns from clips by name.

    Args:
        name: See ``VIDEO``.
        encoder: The network of pictures to train.
        **arguments: The method's own, as for ``build_pretext``.

    Raises:
        InputError: There is no method of that name, or it does not take one of the arguments.
    """
    if name not in VIDEO:
        raise InputError(f"There is no method that learns from clips '{name}'. Methods: {', '.join(sorted(VIDEO))}.")
    return build_method(VIDEO[name], encoder, **arguments)


def build_method(method: type[Built], encoder: Encoder, **arguments: Any) -> Built:
    """Build any method that is made from an encoder.

    Args:
        method: One of ``METHODS``.
        encoder: The network to train.
        **arguments: The method's own, as for ``build_pretext``.

    Raises:
        InputError: The method does not take one of the arguments.
    """
    kinds = get_type_hints(method.__init__)
    try:
        built = {
            key: kinds[key](**_tuples(value)) if isinstance(value, dict) and is_dataclass(kinds.get(key)) else value
            for key, value in arguments.items()
        }
        return method(encoder, **built)
    except TypeError as error:
        name = next(name for name, known in METHODS.items() if known is method)
        raise InputError(f"The method '{name}' cannot be built from {arguments}: {error}.") from error


def _tuples(arguments: dict[str, Any]) -> dict[str, Any]:
    """YAML knows lists alone, dataclasses that are compared and hashed hold tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
