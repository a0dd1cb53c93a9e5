"""`tinyvae --serve`: who is answered, how large a screen may be, and that an app ends with its page."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

if sys.platform == "win32":
    pytest.skip("processes are looked for in /proc", allow_module_level=True)


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Served:
    def __init__(self, tmp_path: Path):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            self.port = free.getsockname()[1]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tinyvae", "--serve", "--port", str(self.port), "--points", "24", "--hidden", "6"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, cwd=tmp_path,
        )  # fmt: skip
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with socket.socket() as one:
                if one.connect_ex(("localhost", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise AssertionError("the server did not start")

    @property
    def page(self) -> str:
        return f"http://localhost:{self.port}"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that outlives its pages."""
    yield from serving(tmp_path_factory.mktemp("served"))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A server to be ended."""
    yield from serving(tmp_path)


def serving(folder: Path) -> Iterator[Served]:
    server = Served(folder)
    yield server
    server.process.kill()
    server.process.wait()


async def opened(session: aiohttp.ClientSession, served: Served, size: str = "width=80&height=24") -> object:
    return await session.ws_connect(f"{served.page}/ws?{size}", headers={"Origin": served.page})


async def first_app(socket: object, served: Served) -> int:
    """Wait until the app draws; the number of its process."""
    await asyncio.wait_for(socket.receive_bytes(), 30)  # type: ignore[attr-defined]
    (pid,) = children(served.process.pid)
    return pid


async def gone(pid: int, seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    return not alive(pid)


@pytest.mark.parametrize(
    "headers, path, status",
    [
        ({}, "/", 200),
        ({"Origin": "http://evil.example"}, "/", 403),
        ({"Host": "evil.example"}, "/", 403),
        ({"Host": "evil.example:8000", "Origin": "http://evil.example:8000"}, "/ws", 403),
        ({"Origin": "http://evil.example"}, "/ws?width=80&height=24", 403),
        ({"Origin": "null"}, "/ws?width=80&height=24", 403),
        ({}, "/ws?width=80&height=24", 403),
        (None, "/ws?width=99999&height=99999", 400),
        (None, "/ws?width=0&height=24", 400),
        (None, "/ws?width=x&height=24", 400),
    ],
)
async def test_only_pages_of_this_server_and_sizes_of_a_screen_are_answered(shared, headers, path, status):
    given = {"Origin": shared.page} if headers is None else headers
    async with aiohttp.ClientSession() as session, session.get(shared.page + path, headers=given) as answer:
        assert answer.status == status
    assert children(shared.process.pid) == []


async def test_an_app_ends_with_its_page_and_another_one_goes_on(shared):
    async with aiohttp.ClientSession() as session:
        one, other = await opened(session, shared), None
        first = await first_app(one, shared)
        other = await opened(session, shared)
        await asyncio.wait_for(other.receive_bytes(), 30)
        await one.send_json(["resize", {"width": 99_999, "height": 99_999}])
        await one.send_json(["stdin", "s"])
        await asyncio.sleep(1.0)
        size = int(Path(f"/proc/{first}/statm").read_text().split()[1]) * 4096
        assert size < 1 << 30
        await one.close()
        assert await gone(first)
        (second,) = children(shared.process.pid)
        await asyncio.wait_for(other.receive_bytes(), 10)
    assert await gone(second)


async def test_a_page_that_reads_no_more_has_its_app_ended(shared):
    async with aiohttp.ClientSession() as session:
        page = await opened(session, shared)
        app = await first_app(page, shared)
        page._response.connection.transport.abort()  # as if the browser had been killed
    assert await gone(app, 30)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_an_app_ends_with_the_server(served, number):
    async with aiohttp.ClientSession() as session:
        app = await first_app(await opened(session, served), served)
        served.process.send_signal(number)
        assert await gone(app, 30)
    served.process.wait(20)


def test_a_port_that_is_taken_is_one_line(shared):
    made = subprocess.run(
        [sys.executable, "-m", "tinyvae", "--serve", "--port", str(shared.port)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert made.returncode == 2
    assert made.stderr.startswith(f"tinyvae: --serve: port {shared.port} cannot be used: ")
    assert made.stderr.count("\n") == 1
