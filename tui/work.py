"""Work beside the screen: in a thread that nobody waits for when the app closes."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """As asyncio.to_thread, but what takes a minute does not hold the end of the program up for a minute."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def answer(result: Any, problem: BaseException | None) -> None:
        if not future.done():  # it was cancelled: its screen has been closed
            future.set_result(result) if problem is None else future.set_exception(problem)

    def work() -> None:
        result, problem = None, None
        try:
            result = function(*arguments)
        except BaseException as caught:
            problem = caught
        with suppress(RuntimeError):  # the loop is closed, and the app with it
            loop.call_soon_threadsafe(answer, result, problem)

    Thread(target=work, daemon=True).start()
    return await future
