"""What in a video sounds? Learnt from videos with sound alone, judged, and shown."""
