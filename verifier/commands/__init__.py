"""What each command does; `cli` parses, these act."""
