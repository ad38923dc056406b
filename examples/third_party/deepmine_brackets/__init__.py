"""Plugins for deepmine-auto by a third party."""
