"""Several trials of a study as one model: chosen, averaged, exported, or taught to one of them."""
