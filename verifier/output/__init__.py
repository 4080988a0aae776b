"""How texts and values are spelled for people."""
