"""medssl turns unlabelled and weakly labelled medical images into better models, and proves how much better."""

__version__ = "0.1.0"
