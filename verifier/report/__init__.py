"""What is shown of a run: everything here is made from records alone."""
