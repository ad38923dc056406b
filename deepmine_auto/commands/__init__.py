"""One command, one file: reads its options, calls the library, prints."""
