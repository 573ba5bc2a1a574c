"""What a server needs besides HTTP: batches, limits, choice of provider. No Ray, no FastAPI."""
