"""`tinyvae --serve`: the same app in a web browser on this machine, by way of textual-serve (extra `web`)."""

import shlex
import sys
from collections.abc import Sequence


def serve(arguments: Sequence[str], port: int) -> int:
    """Serve on localhost only: there is no password. Each page that is opened begins a run of its own."""
    try:
        from textual_serve.server import Server
    except ImportError:
        raise ValueError("--serve needs one more package: pip install 'tinyvae[web]'") from None
    rest = [word for word in arguments if word != "--serve"]
    command = shlex.join([sys.executable, "-m", "tinyvae", *rest])
    Server(command, host="localhost", port=port, title="tinyvae").serve()
    return 0
