"""A sample of the platform's tables and data, for trying Rowbeam with nothing of one's own."""
