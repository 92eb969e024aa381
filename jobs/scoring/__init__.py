"""Rules that turn an answer and its gold answers into a number, and intervals around their means."""
