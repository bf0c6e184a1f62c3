"""``python -m tritonforge``."""

from tritonforge.cli.main import main

main()
