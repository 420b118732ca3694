"""Weak labels: from FreeSurfer, or from atlases registered to a scan."""
