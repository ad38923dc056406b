"""What a user asks for becomes a plan: what can be refused is refused here, before anything is written."""
