"""The vector store port and its adapters; the only place that imports Qdrant."""
