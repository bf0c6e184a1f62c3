"""Artifacts elsewhere: the store that a team shares, and object stores that releases travel through.

What comes from there is believed only by its digest. May import what ``artifact`` may.
"""
