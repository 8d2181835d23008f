"""`python -m hpctrain`."""

from hpctrain.cli.main import main

main()
