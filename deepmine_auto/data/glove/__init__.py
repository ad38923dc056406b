"""Bundled word vectors: the 20,000 most frequent words of GloVe 6B 50d (PDDL 1.0, see README.md)."""
