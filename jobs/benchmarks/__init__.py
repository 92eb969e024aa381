"""Published data sets: how their rows become questions in our words, and how these are put to a model."""
