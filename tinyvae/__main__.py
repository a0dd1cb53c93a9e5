"""`python -m tinyvae`: the one door to the program. Nothing else in here knows of it."""

from tinyvae.tui.__main__ import main

main()
