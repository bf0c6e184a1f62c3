"""What Triton reads: ``config.pbtxt``, ensembles, routers, and the folders of a release.

May import only ``errors``, ``durable``, ``artifact`` and ``spec``. ``config.generate`` makes
one model's config, ``ensemble.wire`` an ensemble of models that have one, ``router.render_router`` the model that owns
a public name for another.
"""
