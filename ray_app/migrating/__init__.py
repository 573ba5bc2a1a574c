"""Change of model: a second generation of an index is built beside the first, and takes its place at once.

The pinned binding of an index stays the only thing that searches, pushes and backfills look at. ``states``
says what may follow what, ``generations`` keeps the two apart where they are written, ``building`` makes the
new one, ``verifying`` proves it, ``switching`` swaps the two, ``operations`` is what the library calls.
"""
