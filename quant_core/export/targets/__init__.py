"""What runtimes want of a file, one profile a file."""
