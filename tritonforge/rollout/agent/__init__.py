"""The program that does on the target what must be done there; one file that needs Python 3.6 and nothing else."""

from pathlib import Path
from typing import Final

AGENT: Final = Path(__file__).with_name("agent.py")
"""Copied to the target, or mounted there."""
