"""Find what a spec names, and read a model's signature.

May import only ``errors``, ``durable``, ``artifact`` and ``spec``.
"""
