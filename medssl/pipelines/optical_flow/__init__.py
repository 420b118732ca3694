"""Optical flow of pairs or videos, learnt from them without a truth, and judged."""
