"""Models that others trained: found, read without running anything of theirs, and put to work."""
