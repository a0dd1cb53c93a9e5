"""`tinyvae --serve`: the same app in a web browser on this machine, by way of textual-serve (extra `web`).

There is no password, so only this machine is answered, and on it only pages that this server has sent: a browser says
with each WebSocket which page opened it (Origin) and whom it thinks it is talking to (Host).
"""

import asyncio
import shlex
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from aiohttp import web
from textual_serve import server
from textual_serve.app_service import AppService

LARGEST = (1000, 300)  # columns and rows that a client may have
PATIENCE = 3.0  # seconds that the app of a client that has gone may take to close


def serve(arguments: Sequence[str], port: int) -> int:
    """Serve on localhost only. Each page that is opened begins a run of its own, which ends with the page."""
    rest = [word for word in arguments if word != "--serve"]
    command = "exec " + shlex.join(
        [sys.executable, "-m", "tinyvae", *rest]
    )  # no shell between: it can be ended
    server.AppService = OneClient  # type: ignore[misc]
    try:
        OwnPages(command, host="localhost", port=port, title="tinyvae").serve()
    except OSError as problem:
        raise ValueError(f"--serve: port {port} cannot be used: {problem.strerror or problem}") from None
    return 0


class OwnPages(server.Server):
    """Answers requests for this host by pages of this server, with a size that a screen can have."""

    async def _make_app(self) -> web.Application:
        app: web.Application = await super()._make_app()
        app.middlewares.append(self._guard)
        return app

    @property
    def hosts(self) -> set[str]:
        names = {f"{name}:{self.port}" for name in ("localhost", "127.0.0.1", "[::1]")}
        return names | ({"localhost", "127.0.0.1", "[::1]"} if self.port == 80 else set())

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.host not in self.hosts:
            raise web.HTTPForbidden(text="another host than this one was asked for")
        origin = request.headers.get("Origin", "" if request.path == "/ws" else f"http://{request.host}")
        if origin not in {f"http://{host}" for host in self.hosts}:
            raise web.HTTPForbidden(text="the request comes from a page of somebody else")
        for name, most in zip(("width", "height"), LARGEST):
            text = request.query.get(name, "1")
            if not (text.isdecimal() and len(text) < 6 and 0 < int(text) <= most):
                raise web.HTTPBadRequest(text=f"{name}: expected a number from 1 to {most}")
        return await handler(request)


class OneClient(AppService):
    """The app of one page. It ends with the page, even where it can write no more."""

    async def stop(self) -> None:
        with suppress(asyncio.TimeoutError, OSError):
            await asyncio.wait_for(super().stop(), PATIENCE)
        if self._process is not None:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._process.wait(), PATIENCE)
            if self._process.returncode is None:
                self._process.kill()
                await self._process.wait()
