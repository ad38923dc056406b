"""One trial: model, batches, loop, checkpoints."""
