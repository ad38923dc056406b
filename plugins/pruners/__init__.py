"""What stops hopeless trials."""
