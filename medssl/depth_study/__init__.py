"""Methods of depth on one recording, side by side: its geometry, trainings, scores, results and a page."""
