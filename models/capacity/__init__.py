"""What fits in a device's memory: known before a run, found out at its start, and done with less where it does not."""
