"""How a source of each framework is loaded: one file a framework."""
