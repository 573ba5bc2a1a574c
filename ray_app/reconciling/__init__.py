"""Whether tables, ledger and vector store say the same, and making them."""
