"""One tenant's vectors as files for anybody, and the embedded store's folders as they are."""
