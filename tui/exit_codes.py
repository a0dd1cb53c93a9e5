"""How the program ends, for the shell."""

GOOD = 0
FAILED = 1  # a claim of a lesson does not hold
BAD_INPUT = 2  # or a file that cannot be read or written
DIVERGED = 3
INTERRUPTED = 130  # Ctrl-C
TERMINATED = 143  # SIGTERM
HUNG_UP = 129  # SIGHUP: the terminal was closed
READER_LEFT = 141  # what reads the output has gone
