"""Depth from a calibrated stereo recording, learnt from it without a truth, and judged."""
