"""The HTTP API as a FastAPI application over ``Services``; knows nothing of Ray."""
