"""Rich's console, for those parts of the program that print."""

import rich.console


class Console(rich.console.Console):
    """Rich would exit with 1 where the reader has left, which means something else here."""

    def on_broken_pipe(self) -> None:
        raise
