"""The jobs on data and a small checkpoint that come with the package."""
