"""What can be asked for, whoever asks: the command line, the configuration, Python, or pytest."""
