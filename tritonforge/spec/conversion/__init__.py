"""What is made of a source for serving: one file a step or backend, and :class:`Variant`, which has them all."""
