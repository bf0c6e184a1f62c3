"""``forge.yaml`` and ``forge.lock`` as typed objects. Data only: no code of a spec runs while it is read.

May import only ``errors``, ``durable`` and ``artifact``.
"""
