"""Search spaces: which plugins, which ranges, which budget."""
