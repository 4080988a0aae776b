"""What is looked at: cases as plain data, the flag matrix, coverings, inputs, shards."""
