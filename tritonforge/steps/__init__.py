"""The steps that make artifacts: one plain class a step, in a file of its own name.

A step is a pure function of its inputs, its configuration and what :class:`~tritonforge.steps.step.Needs` declares.
May import only ``errors``, ``durable``, ``artifact``, ``spec`` and ``sources``.
"""
