"""How rows travel: reading, preparing, answering and writing them on Ray, and the settings of it."""
