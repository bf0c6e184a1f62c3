"""Run a model of any format on this machine: one file a format, each with ``open(folder, artifact, threads)``.

References and comparisons ask runners, so that each format is run in one place. May import only ``errors``,
``durable``, ``artifact``, ``spec`` and ``sources``; a runner's framework is imported when it is opened.
"""
