"""Where the demo's small checkpoints come from: what all families share here, what differs in a folder each."""
