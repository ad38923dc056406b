"""Bundled tweets with their ratings (MIT, see LICENSE.txt)."""
