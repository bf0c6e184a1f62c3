"""Steps that make a graph smaller or faster without changing what it computes."""
