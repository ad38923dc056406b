"""What proposes params."""
