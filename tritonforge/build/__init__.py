"""The graph of steps, what of it must run and why, and the workers that run it.

May import only ``errors``, ``durable``, ``artifact``, ``spec``, ``sources`` and ``steps``.
"""
