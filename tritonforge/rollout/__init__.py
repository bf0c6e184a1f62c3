"""Takes releases to where they run: targets, the journal of each rollout, and the strategies that move traffic.

May import ``repository``, ``triton``, ``measure`` and what lies below them. docker and kubernetes are imported where
they are used. What proves a newcomer (validation, gates) is handed in by ``actions``.
"""
