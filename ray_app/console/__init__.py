"""What the operators' console shows: sessions, views and templates; knows nothing of HTTP."""
