"""The outbox: triggers note which rows were changed, in the transactions that change them.

``statements`` has its SQL, ``installing`` puts it in place, ``draining`` brings what it holds into the
indexes. It carries keys only: every row is read again when its entry is drained.
"""
