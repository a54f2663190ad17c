"""Translates SQLite's errors into Plait's."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path

import apsw

from plait_server.adapters.journals.sqlite_rows import UnexpectedRow
from plait_server.errors import InvariantViolated, JournalFull, JournalUnavailable, StoreDamaged, StoreLocked


@contextlib.contextmanager
def translate_errors(path: Path) -> Generator[None]:
    """Translate the errors that SQLite raises in the block.

    Raises:
        JournalFull: the disk is full.
        JournalUnavailable: the disk, or the machine, refuses.
        StoreDamaged: the file is no database, or contradicts itself.
        StoreLocked: another program holds a lock on the database itself.
        InvariantViolated: the statement was wrong.
    """
    try:
        yield
    except apsw.FullError as error:
        raise JournalFull(
            f"the disk of {path} is full, and nothing was written; free space, the server goes on by itself",
            nothing_written=True,
        ) from error
    except apsw.IOError as error:
        code = getattr(error, "extendedresult", None)
        if code == apsw.SQLITE_IOERR_DATA:
            raise damaged(path, "the checksum of a page does not fit", is_page=True) from error
        raise _failed(path, error) from error
    except (apsw.BusyError, apsw.LockedError) as error:
        raise StoreLocked(
            f"another program has the database {path} open; stop it, or name another store"
        ) from error
    except (apsw.CorruptError, apsw.NotADBError, apsw.FormatError) as error:
        raise damaged(path, str(error)) from error
    except UnexpectedRow as error:
        raise damaged(path, str(error)) from error
    except (apsw.ConstraintError, UnicodeDecodeError) as error:
        # Rows are checked before they are written, and written as text; a row breaks one of the two.
        raise damaged(path, str(error)) from error
    except (
        apsw.CantOpenError,
        apsw.ReadOnlyError,
        apsw.PermissionsError,
        apsw.AuthError,
        apsw.ProtocolError,
        apsw.NoLFSError,
        apsw.NoMemError,
        apsw.InterruptError,
    ) as error:
        raise _failed(path, error) from error
    except apsw.Error as error:
        raise InvariantViolated(f"SQLite refused a statement: {error}; please report it") from error


def is_page_damage(error: StoreDamaged) -> bool:
    """Return whether a damage is known only to lie in some page."""
    return error.fields.get("is_page") is True


def _failed(path: Path, error: apsw.Error) -> JournalUnavailable:
    code = getattr(error, "extendedresult", None)
    return JournalUnavailable(f"the store {path} failed: {error} (SQLite {code})", code=code)


def damaged(path: Path, what: str, *, is_page: bool = False) -> StoreDamaged:
    """Return the error for a store with a damaged structure."""
    return StoreDamaged(
        f"the store {path} is damaged: {what}. Nothing was guessed. `plait store check {path}` shows all that is "
        f"damaged, `plait store salvage {path} NEW` saves all that is whole; or restore a backup",
        is_page=is_page,
    )
