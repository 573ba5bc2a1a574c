"""Moves of a tenant's vectors to another place: a whole copy is made beside them, and takes over at once.

The placement in the registry stays the only thing that searches and writes look at. ``states`` says what
may follow what, ``copying`` makes the two places equal, ``verifying`` proves that they are, ``switching``
changes the placement, ``operations`` is what the library calls. No model is called.
"""
