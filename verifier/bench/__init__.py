"""What a run costs and where that goes: start-up, the whole matrix, a case, a check, growth, another program."""
