"""See ``model.py``."""
