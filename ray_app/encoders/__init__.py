"""Encoders turn texts into vectors; plain Python, no Ray."""
