"""Data: reading it, splitting it, and knowing it again."""
