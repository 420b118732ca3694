"""Regions of the brain in head CT, and what each scores: density, left against right, lesions."""
