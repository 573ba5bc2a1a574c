"""The rowbeam command."""
