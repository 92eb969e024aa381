"""Which rows there are, and reading them: shards, units, formats, images that rows name."""
