"""The exported model: saved, described, reloaded in a clean process and compared."""
