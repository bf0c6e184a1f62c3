"""The files of a Python model that runs PyTorch: they are copied into the artifact, and use nothing of tritonforge."""
