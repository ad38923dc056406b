"""Several trials of a study as one model: chosen, averaged, exported."""
