"""Rowbeam: tenant rows in, searchable vectors out."""
