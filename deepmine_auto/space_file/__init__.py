"""Search space files: from TOML to the space that is searched."""
