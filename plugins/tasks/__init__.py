"""Tasks: data, head, loss, scores, baseline."""
