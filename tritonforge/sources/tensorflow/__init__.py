"""TensorFlow sources: SavedModel, Keras files, frozen graphs and checkpoints, each as one traced function.

May import what ``sources`` may; TensorFlow itself is imported when a source is loaded.
"""
