"""What changes training."""
