"""Providers embed texts of one space: local encoders and the AI gateway."""
