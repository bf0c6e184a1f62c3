"""Steps that compile a model for one backend."""
