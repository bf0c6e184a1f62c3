"""The file of a Python model that runs TensorFlow: it is copied into the artifact, and uses nothing of tritonforge."""
