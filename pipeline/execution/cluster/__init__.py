"""Ray, its nodes, and which step gets which share of them."""
