"""What is looked at when an output is verified: each of its files, and some of its rows computed again."""
