"""A recording of an endoscopy in; methods of depth on it side by side, and the best one's surface and flight out."""
