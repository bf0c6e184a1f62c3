"""PyTorch models of every kind as modules: loading them, and calling them by the names of their inputs.

Imports errors, artifact and the readers beside it; PyTorch only where something is loaded or run.
"""
