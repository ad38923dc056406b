"""Bundled word vectors (PDDL)."""
