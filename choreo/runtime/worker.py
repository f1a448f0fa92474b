"""Faust's worker with an exit code: a choreo error ends it with one line and the code of that error."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import faust

from choreo.errors import ChoreoError


class Worker(faust.Worker):  # type: ignore[misc]  # Faust's stubs are not read, see pyproject
    """``faust worker`` for choreo apps; the same flags and life cycle as Faust's own."""

    failure: ChoreoError | None = None

    def fail(self, failure: ChoreoError) -> None:
        """Stop in the usual order, then exit with the error's code. The first failure counts."""
        if self.failure is None:
            self.failure = failure
            self.log.critical("%s", failure)
            # Kept in Faust's own variable: its shutdown waits for that future.
            self._signal_stop_future = asyncio.ensure_future(self._stop_after_failure())

    async def _stop_after_failure(self) -> None:
        await self.stop()
        if self._starting_fut is not None and not self._starting_fut.done():
            self._starting_fut.cancel()

    def on_init_dependencies(self) -> Any:
        """Let the app report failures here before anything starts."""
        self.app.on_failure = self.fail
        return super().on_init_dependencies()

    def execute_from_commandline(self) -> NoReturn:
        """Run until stopped.

        Raises:
            SystemExit: 0 after a signal, the error's exit code after a choreo error, Faust's own code otherwise.
        """
        try:
            super().execute_from_commandline()
        except SystemExit as exit_:
            if self.failure is not None:
                raise SystemExit(self.failure.exit_code) from None
            raise exit_
        raise AssertionError("Faust's worker returned")
