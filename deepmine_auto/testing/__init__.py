"""Promises that a plugin's author inherits as tests."""
