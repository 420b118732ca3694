"""What a depth method makes of a whole recording: maps, videos, a surface, the camera's path, scores and a page."""
