"""How the program ends, for the shell."""

GOOD = 0
FAILED = 1  # a claim of a lesson does not hold
BAD_INPUT = 2
DIVERGED = 3
INTERRUPTED = 130  # Ctrl-C
READER_LEFT = 141  # what reads the output has gone
