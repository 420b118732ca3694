"""What a method that knows sound by sight makes of videos: where the sound is, when it fits, and what is alike."""
