"""How the learning rate goes on after warm-up."""
