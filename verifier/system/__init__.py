"""What the machine gives: files that others wrote, temporary folders, and how much of it a process may have."""
