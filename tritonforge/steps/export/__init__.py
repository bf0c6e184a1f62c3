"""Steps that bring a source into the store."""
