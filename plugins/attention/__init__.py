"""Attention variants: one variant, one file, one paper."""
