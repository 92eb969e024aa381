"""What must hold before anything starts: everything that can be checked is, and all faults are listed at once."""
