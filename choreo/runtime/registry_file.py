"""The file registry: schema ids in a committed file, no server. The default.

Workers only look up. ``register`` (``choreo apply``) rewrites the file atomically, under a lock on its directory.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from choreo.codec.schema import Schema
from choreo.errors import HostError, SchemaError
from choreo.runtime.builtin_schemas import builtin_lock
from choreo.runtime.registry_lock import FIRST_USER_ID, Lock

LOCK_NAME: Final = "registry.lock.json"


class FileRegistry:
    """Registry port over a lock file.

    Args:
        path: the file, usually ``schemas/registry.lock.json``. It need not exist: then nothing is registered.
        known: the project's schemas, where they were parsed already: a large lock file is read in half the time.
    """

    def __init__(self, path: Path, known: Iterable[Schema] = ()) -> None:
        self.path = path
        self._known = tuple(known)
        self._stamp: tuple[int, int, int] | None = None
        self._lock = self._read()

    def id_for(self, subject: str, schema: Schema) -> int:
        """The id under which a subject's records carry this schema.

        Raises:
            SchemaError: CH0205, this schema is not registered for the subject.
        """
        own = builtin_lock().id_of(schema)
        if own is not None:
            return own
        found = self._lock.find(subject, schema) or self._fresh().find(subject, schema)
        if found is not None:
            return found.schema_id
        known = self._lock.versions(subject)
        seen = "is not registered" if not known else f"differs from its {len(known)} registered version(s)"
        raise SchemaError(
            f"the schema {schema.full_name} {seen} for {subject}",
            code="CH0205",
            where=str(self.path),
            hint="run `choreo apply`, and commit the lock file",
        )

    def schema_by_id(self, schema_id: int) -> Schema:
        """The schema that an id on the wire means.

        Raises:
            SchemaError: CH0205, unknown id.
        """
        if schema_id < FIRST_USER_ID:
            return builtin_lock().schema(schema_id)
        lock = self._lock if schema_id in self._lock.texts else self._fresh()
        return lock.schema(schema_id)

    def register(self, subject: str, schema: Schema) -> int:
        """Makes the schema the subject's newest version, unless it is; returns its id. choreo's own keep theirs."""
        own = builtin_lock().id_of(schema)
        if own is not None:
            return own
        with self._exclusive():
            lock, number = self._read().registered(subject, schema)
            self._write(lock)
        return number

    def versions(self, subject: str) -> list[tuple[int, int, Schema]]:
        """(version, id, schema) of a subject, oldest first; empty if nothing is registered."""
        lock = self._fresh()
        if subject in builtin_lock().subjects:
            lock = builtin_lock()
        return [(one.version, one.schema_id, lock.schema(one.schema_id)) for one in lock.versions(subject)]

    def subjects(self) -> list[str]:
        """Every subject that has versions, choreo's own included."""
        return sorted({*self._fresh().subjects, *builtin_lock().subjects})

    def _fresh(self) -> Lock:
        """The contents as they are on disk now."""
        if self._stamp != self._stamp_now():
            self._lock = self._read()
        return self._lock

    def _stamp_now(self) -> tuple[int, int, int] | None:
        try:
            facts = self.path.stat()
        except FileNotFoundError:
            return None
        return facts.st_mtime_ns, facts.st_size, facts.st_ino

    def _read(self) -> Lock:
        self._stamp = self._stamp_now()
        try:
            text = self.path.read_text("utf-8")
        except FileNotFoundError:
            return Lock(file=str(self.path))
        except (OSError, UnicodeDecodeError) as error:
            raise HostError(f"the schema lock file cannot be read: {error}", where=str(self.path)) from None
        lock = Lock.parse(text, str(self.path))
        lock.adopt(self._known)
        return lock

    def _write(self, lock: Lock) -> None:
        text = lock.dump()
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("w", encoding="utf-8") as out:
                out.write(text)
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(self.path)
        except OSError as error:
            raise HostError(f"the schema lock file cannot be written: {error}", where=str(self.path)) from None
        self._lock = lock
        self._stamp = self._stamp_now()

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Holds the directory against another ``choreo apply``; the kernel releases it even after ``kill -9``."""
        try:
            handle = os.open(self.path.parent, os.O_RDONLY)
        except OSError as error:
            raise HostError(
                f"the directory of the schema lock file is missing: {error}", where=str(self.path)
            ) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)
