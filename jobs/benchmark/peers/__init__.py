"""What the benchmark compares with: a plain script, and servers that are installed in venvs of their own."""
