"""Rules for questions with a definite answer: an option's letter, a number, a formula, a program that passes or not."""
