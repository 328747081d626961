"""`python -m sftray`: the command where its script is not on the PATH."""

from sftray.cli.main import main

main()
