"""An event loop in a thread: what a laboratory runs beside the processes under test, called from plain functions."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

__all__ = ["CALL_SECONDS", "LoopThread"]

T = TypeVar("T")
CALL_SECONDS = 20.0
"""For what is set up or torn down on loopback in milliseconds."""


class LoopThread:
    """A loop that runs until the block ends; its tasks are cancelled and awaited then."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(TimeoutError):
            self.call(self._end_tasks())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(CALL_SECONDS)
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and wait for its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(CALL_SECONDS)

    def do(self, function: Any, *arguments: Any) -> Any:
        """Call a plain function there, so that it meets no task half-way; its result."""

        async def once() -> Any:
            return function(*arguments)

        return self.call(once())

    @staticmethod
    async def _end_tasks() -> None:
        mine = asyncio.all_tasks() - {asyncio.current_task()}
        for task in mine:
            task.cancel()
        await asyncio.gather(*mine, return_exceptions=True)
