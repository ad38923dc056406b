"""Stacks around attention."""
