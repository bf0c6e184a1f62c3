"""Signatures, artifacts, digests and the content-addressed store. May import only ``errors`` and ``durable``."""
