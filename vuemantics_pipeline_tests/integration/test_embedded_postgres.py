"""The embedded Postgres: started, joined, killed and stopped, with real processes."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest
from sqlalchemy import create_engine, text

from vuemantics_pipeline.errors import BackendUnavailable
from vuemantics_pipeline.home.postgres import embedded_postgres, is_running

# Says the URL once the server is up, and leaves when its input ends.
USER = """
import sys
from pathlib import Path
from vuemantics_pipeline.home.postgres import embedded_postgres
with embedded_postgres(Path(sys.argv[1])) as url:
    print(url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """An empty home, to which the system user under whom root runs the server finds its way."""
    folder = Path(tempfile.mkdtemp(prefix="vuemantics-tests-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def old_home() -> Iterator[Path]:
    """A home whose server has run before. The tests share it, and leave the server able to."""
    folder = Path(tempfile.mkdtemp(prefix="vuemantics-tests-"))
    with embedded_postgres(folder):
        pass
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def used_home(old_home: Path) -> Iterator[Path]:
    """The shared home; its server is stopped before the next test, whatever this one did."""
    yield old_home
    if is_running(old_home):
        with embedded_postgres(old_home):
            pass


@contextmanager
def another_user(home: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Use the server from another process: give the process and the URL it was given."""
    process = subprocess.Popen(
        [sys.executable, "-c", USER, str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()


def postmaster(home: Path) -> int:
    return int((home / "postgres/data/postmaster.pid").read_text().splitlines()[0])


def one(url: str, query: str = "SELECT current_database()") -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def wait_until_gone(pid: int) -> None:
    give_up_at = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


def test_from_nothing_to_a_database_and_back(home: Path) -> None:
    with embedded_postgres(home) as url:
        assert url.startswith("postgresql://")
        assert one(url) == "vuemantics"
        engine = create_engine(url.replace("postgresql:", "postgresql+psycopg2:"))
        with engine.connect() as connection:
            assert connection.execute(text("SELECT current_database()")).scalar() == "vuemantics"
        engine.dispose()
        pid = postmaster(home)
    assert not is_running(home)
    wait_until_gone(pid)


def test_pgvector_and_unicode(used_home: Path) -> None:
    with embedded_postgres(used_home) as url, psycopg.connect(url) as connection:
        connection.execute("CREATE EXTENSION vector")
        row = connection.execute("SELECT '[1,2]'::vector <-> '[1,4]', upper('é')").fetchone()
    assert row == (2.0, "É")


def test_nobody_else_gets_in(used_home: Path) -> None:
    with embedded_postgres(used_home):
        assert (used_home / "postgres").stat().st_mode & 0o077 == 0
        (server_socket,) = (used_home / "postgres").glob(".s.PGSQL.5432")
        assert server_socket.stat().st_mode & 0o077 == 0
        listening = psutil.Process(postmaster(used_home)).net_connections("inet")
    assert listening == []


def test_joined_by_another_process(used_home: Path) -> None:
    with embedded_postgres(used_home) as url:
        pid = postmaster(used_home)
        with another_user(used_home) as (_, theirs):
            assert theirs == url
        assert postmaster(used_home) == pid
        assert one(url) == "vuemantics"


def test_the_starter_leaves_first(used_home: Path) -> None:
    with another_user(used_home) as (starter, url):
        with embedded_postgres(used_home):
            pid = postmaster(used_home)
            starter.communicate()
            assert one(url) == "vuemantics"
        assert not is_running(used_home)
    wait_until_gone(pid)


def test_two_in_one_process(used_home: Path) -> None:
    with embedded_postgres(used_home):
        with embedded_postgres(used_home) as url:
            pass
        assert one(url) == "vuemantics"
    assert not is_running(used_home)


def test_many_start_at_once(home: Path) -> None:
    command = [sys.executable, "-c", USER, str(home)]
    users = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    urls = {user.stdout.readline().strip() for user in users if user.stdout is not None}
    assert len(urls) == 1
    assert one(urls.pop()) == "vuemantics"
    for user in users:
        user.communicate()
    assert [user.returncode for user in users] == [0] * 4
    assert not is_running(home)


def test_killed_users_do_not_keep_it_running(used_home: Path) -> None:
    with embedded_postgres(used_home) as url:
        for _ in range(2):
            with another_user(used_home) as (process, _):
                process.kill()
        assert one(url) == "vuemantics"
    assert not is_running(used_home)


def test_its_only_user_was_killed(used_home: Path) -> None:
    with another_user(used_home) as (process, url):
        process.kill()
    pid = postmaster(used_home)
    with embedded_postgres(used_home) as again:
        assert again == url
        assert postmaster(used_home) == pid
    assert not is_running(used_home)


def test_the_server_was_killed(used_home: Path) -> None:
    with embedded_postgres(used_home) as url:
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        # A session at work outlives the server, and must not write beside the next one.
        with closing(psycopg.connect(url)) as busy:
            busy.pgconn.send_query(b"SELECT pg_sleep(60)")
            busy.pgconn.flush()
            os.kill(postmaster(used_home), signal.SIGKILL)
            with embedded_postgres(used_home) as again:
                assert one(again, "SELECT number FROM kept") == 7
    assert not is_running(used_home)


@pytest.mark.parametrize("pid", [None, 1, 2**22 + 1], ids=["ours", "init", "nobody"])
def test_a_number_left_behind_that_is_another_programs(used_home: Path, pid: int | None) -> None:
    with embedded_postgres(used_home):
        number = used_home / "postgres/data/postmaster.pid"
        left = number.read_text().replace(str(postmaster(used_home)), str(pid or os.getpid()), 1)
    number.write_text(left)
    with embedded_postgres(used_home) as url:
        assert one(url) == "vuemantics"


@pytest.mark.parametrize("name", ["long" * 30, "with, a comma & 100% ö'dd $(name)"])
def test_names_no_socket_can_have(home: Path, name: str) -> None:
    with embedded_postgres(home / name) as url:
        assert one(url) == "vuemantics"
        folder = Path(url.partition("host=")[2].partition("&")[0])
        assert not folder.is_relative_to(home)
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()


def test_cut_off_while_it_was_made(home: Path) -> None:
    unfinished = home / "postgres/data.unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")
    with embedded_postgres(home) as url:
        assert one(url) == "vuemantics"
    assert not unfinished.exists()


def test_made_by_another_version(home: Path) -> None:
    (home / "postgres/data").mkdir(parents=True)
    (home / "postgres/data/PG_VERSION").write_text("9\n")
    with pytest.raises(BackendUnavailable, match="Postgres 9") as caught, embedded_postgres(home):
        pass
    assert caught.value.code == "embedded_postgres"


def test_it_cannot_start(used_home: Path) -> None:
    settings = used_home / "postgres/data/postgresql.conf"
    before = settings.read_text()
    settings.write_text(before + "no_such_setting = 1\n")
    try:
        with (
            pytest.raises(BackendUnavailable, match="no_such_setting") as caught,
            embedded_postgres(used_home),
        ):
            pass
    finally:
        settings.write_text(before)
    assert str(used_home / "postgres/log") in caught.value.remedy
    assert not is_running(used_home)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_root_leaves_an_ordinary_users_server_theirs(home: Path) -> None:
    somebody = 65534
    folder = home / "postgres"
    folder.mkdir()
    os.chown(folder, somebody, somebody)
    with embedded_postgres(home) as url:
        assert one(url) == "vuemantics"
        assert psutil.Process(postmaster(home)).uids().real == somebody
        assert {path.lstat().st_uid for path in (folder, *folder.rglob("*"))} == {somebody}


def test_the_home_is_a_file(home: Path) -> None:
    (home / "file").touch()
    with (
        pytest.raises(BackendUnavailable, match="cannot be used"),
        embedded_postgres(home / "file"),
    ):
        pass


def test_variables_of_postgres_do_not_reach_it(
    used_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "5999")
    monkeypatch.setenv("PGDATA", "/nowhere")
    with embedded_postgres(used_home) as url:
        assert one(url) == "vuemantics"


def test_kept_running_until_told_to_end(used_home: Path) -> None:
    command = [sys.executable, "-m", "vuemantics_pipeline.home.postgres", str(used_home)]
    with subprocess.Popen(command) as keeper:
        wait_until_running(used_home)
        keeper.terminate()
        assert keeper.wait(30) == 0
    assert not is_running(used_home)


def test_the_keeper_ends_when_the_server_dies(used_home: Path) -> None:
    command = [sys.executable, "-m", "vuemantics_pipeline.home.postgres", str(used_home)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as keeper:
        wait_until_running(used_home)
        os.kill(postmaster(used_home), signal.SIGKILL)
        _, said = keeper.communicate(timeout=30)
    assert keeper.returncode == 1
    assert "has died" in said


def wait_until_running(home: Path) -> None:
    give_up_at = time.monotonic() + 30
    while not is_running(home):
        assert time.monotonic() < give_up_at
        time.sleep(0.05)
    with (home / "postgres/starting.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
