"""The page and the numbers that a run leaves for people and programs."""
