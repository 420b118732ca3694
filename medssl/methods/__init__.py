"""Methods by name; one file each."""

from medssl.method import Method
from medssl.methods.segmentation import Segmentation

METHODS: dict[str, type[Method]] = {"segmentation": Segmentation}
