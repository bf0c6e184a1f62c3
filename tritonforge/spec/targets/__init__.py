"""Where releases run: ``targets:`` of the spec, one file a kind. Imports only what the rest of ``spec`` imports."""
