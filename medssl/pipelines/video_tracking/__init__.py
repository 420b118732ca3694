"""Learn to find things again in video, and follow masks by it; scored beside simpler ways."""
