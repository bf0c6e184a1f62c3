"""The ``model.py`` of each processor, which is packaged as it stands: it runs in Triton, without tritonforge."""
