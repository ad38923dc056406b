"""First-party plugins, found by entry point like anyone's."""
