"""Ray jobs: run as python -m jobs.<name> or through ray job submit."""
