"""Labels and points of one frame carried through a whole video, and what that is worth beside simpler ways."""
