"""Rules for questions whose answer is a word, a number or a short phrase."""
