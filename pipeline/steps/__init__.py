"""What becomes of a unit: rows to inputs, inputs to answers, answers to parts."""
