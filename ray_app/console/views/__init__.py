"""View models: what each page shows, as text ready to be printed. Pure."""
