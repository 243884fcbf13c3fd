"""The supervisor, with real child processes."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from vuemantics_pipeline.errors import BackendUnavailable, UsageError
from vuemantics_pipeline.home import processes
from vuemantics_pipeline.home.processes import (
    Service,
    free_port,
    keep_short,
    require_free_port,
    supervise,
)

SLEEP = "import time; time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-S", "-c", code)


def wait_for(condition: Callable[[], bool], seconds: float = 15) -> None:
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at, "It did not happen in time."
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def written(path: Path) -> bool:
    return path.exists() and path.read_text().endswith("\n")


def test_output_goes_to_the_log(tmp_path: Path) -> None:
    log = tmp_path / "logs/talker.log"
    code = (
        "import os, sys; print('out', flush=True); "
        f"print(os.environ.get('GREETING'), file=sys.stderr, flush=True); {SLEEP}"
    )
    services = [Service("talker", python(code), lambda: log.read_text().count("\n") == 2)]
    with supervise(services, logs=log.parent, environment={"GREETING": "hello"}) as supervisor:
        supervisor.wait_until_ready()
        pid = supervisor.processes()["talker"]
        assert log.read_text() == "out\nhello\n"
        assert os.getsid(pid) == pid
    assert not is_alive(pid)
    assert supervisor.processes() == {}


def test_a_secret_is_its_services_own(tmp_path: Path) -> None:
    code = f"import os; print(os.environ.get('SECRET'), os.environ['A'], flush=True); {SLEEP}"
    logs = {name: tmp_path / f"{name}.log" for name in ("knows", "does_not")}
    services = [
        Service(name, python(code), lambda log=log: written(log), secrets=secrets)  # type: ignore[misc]
        for (name, log), secrets in zip(logs.items(), ({"SECRET": "hush"}, {}), strict=True)
    ]
    assert "hush" not in repr(services)
    with supervise(services, logs=tmp_path, environment={"A": "1"}) as supervisor:
        supervisor.wait_until_ready()
    assert [log.read_text() for log in logs.values()] == ["hush 1\n", "None 1\n"]


def test_in_order_and_back(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    diary.touch()

    def service(name: str) -> Service:
        note = f"file = open({str(diary)!r}, 'a'); file.write({{!r}}); file.flush()"
        code = (
            "import signal, sys, time\n"
            f"def leave(*_):\n    {note.format(f'-{name} ')}; sys.exit()\n"
            "signal.signal(signal.SIGTERM, leave)\n"
            f"time.sleep(0.2); {note.format(f'+{name} ')}; time.sleep(60)"
        )
        return Service(name, python(code), lambda: f"+{name}" in diary.read_text())

    with supervise([service("a"), service("b")], logs=tmp_path) as supervisor:
        supervisor.wait_until_ready()
    assert diary.read_text() == "+a +b -b -a "


def test_restarted_after_a_kill_and_more_patiently_each_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pauses = []
    with supervise([Service("sleeper", python(SLEEP))], logs=tmp_path) as supervisor:
        for _ in range(2):
            wait_for(lambda: "sleeper" in supervisor.processes())
            os.kill(supervisor.processes()["sleeper"], signal.SIGKILL)
            killed_at = time.monotonic()
            wait_for(lambda: "sleeper" not in supervisor.processes())
            wait_for(lambda: "sleeper" in supervisor.processes())
            pauses.append(time.monotonic() - killed_at)
    assert [message.split()[-2] for message in caplog.messages] == ["1", "2"]
    assert pauses[0] >= 1
    assert pauses[1] >= 2


def test_a_minute_of_health_starts_the_pauses_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(processes, "_HEALTHY_SECONDS", 0)
    with supervise([Service("mayfly", python("pass"))], logs=tmp_path):
        wait_for(lambda: len(caplog.messages) == 2)
    assert [message.split()[-2] for message in caplog.messages] == ["1", "1"]


def test_everything_it_started_ends_with_it(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    # A child, one in a session of its own, and one whose parent is gone.
    code = f"""
import subprocess, sys, time
sleep = [sys.executable, "-S", "-c", {SLEEP!r}]
child = subprocess.Popen(sleep)
apart = subprocess.Popen(sleep, start_new_session=True)
orphan = subprocess.run([sys.executable, "-S", "-c",
    "import subprocess, sys; print(subprocess.Popen(sys.argv[1:], stdout=2).pid)", *sleep],
    stdout=subprocess.PIPE, text=True, check=True).stdout
with open({str(pids)!r}, "w") as file:
    file.write(f"{{child.pid}} {{apart.pid}} {{orphan}}")
time.sleep(60)
"""
    service = Service("parent", python(code), lambda: written(pids))
    with supervise([service], logs=tmp_path) as supervisor:
        supervisor.wait_until_ready()
        started = [int(pid) for pid in pids.read_text().split()]
        assert len(started) == 3
        assert all(map(is_alive, started))
    assert not any(map(is_alive, started))


def test_workers_outlive_a_service_that_died_but_not_the_supervisor(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = f"""
import subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-S", "-c", {SLEEP!r}])
with open({str(pids)!r}, "a") as file:
    file.write(f"{{worker.pid}}\\n")
time.sleep(60)
"""
    service = Service("parent", python(code), lambda: written(pids))
    with supervise([service], logs=tmp_path) as supervisor:
        supervisor.wait_until_ready()
        os.kill(supervisor.processes()["parent"], signal.SIGKILL)
        wait_for(lambda: pids.read_text().count("\n") == 2)
        workers = [int(pid) for pid in pids.read_text().split()]
        assert all(map(is_alive, workers))
    assert not any(map(is_alive, workers))


def test_killed_when_it_will_not_end(tmp_path: Path) -> None:
    code = f"{STUBBORN} print('up', flush=True); {SLEEP}"
    log = tmp_path / "stubborn.log"
    service = Service("stubborn", python(code), lambda: written(log))
    with supervise([service], logs=tmp_path, grace_seconds=0.5) as supervisor:
        supervisor.wait_until_ready()
        pid = supervisor.processes()["stubborn"]
        stopped_at = time.monotonic()
    assert 0.5 <= time.monotonic() - stopped_at < 5
    assert not is_alive(pid)


def test_never_ready(tmp_path: Path) -> None:
    code = f"print('still thinking', flush=True); {SLEEP}"
    service = Service("slow", python(code), lambda: False)
    with supervise([service], logs=tmp_path, start_seconds=1) as supervisor:
        with pytest.raises(
            BackendUnavailable, match=r"(?s)not ready within 1 s.*still thinking"
        ) as caught:
            supervisor.wait_until_ready()
        supervisor.stop()
        assert supervisor.processes() == {}
    assert caught.value.code == "service_not_ready"
    assert str(tmp_path / "slow.log") in caught.value.remedy


@pytest.mark.parametrize(
    ("command", "last_words"),
    [(python("raise SystemExit('no wish to')"), "no wish to"), (("/no/such/program",), "Error")],
)
def test_ended_while_it_was_starting(
    tmp_path: Path, command: tuple[str, ...], last_words: str
) -> None:
    with (
        supervise([Service("short", command, lambda: False)], logs=tmp_path) as supervisor,
        pytest.raises(BackendUnavailable, match=f"(?s)ended with code 1.*{last_words}"),
    ):
        supervisor.watch()


def test_stopped_while_it_starts(tmp_path: Path) -> None:
    began_at = time.monotonic()
    with supervise([Service("slow", python(SLEEP), lambda: False)], logs=tmp_path) as supervisor:
        wait_for(lambda: "slow" in supervisor.processes())
        pid = supervisor.processes()["slow"]
    assert time.monotonic() - began_at < 10
    assert not is_alive(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the signal for it")
def test_services_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    code = f"""
import sys, time
from pathlib import Path
from vuemantics_pipeline.home.processes import Service, supervise
service = Service("sleeper", (sys.executable, "-S", "-c", {SLEEP!r}))
with supervise([service], logs=Path({str(tmp_path)!r})) as supervisor:
    supervisor.wait_until_ready()
    print(supervisor.processes()["sleeper"], flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as supervisor:
        assert supervisor.stdout is not None
        pid = int(supervisor.stdout.readline())
        # A moment, for the service to tie itself to its parent and become its program.
        wait_for(lambda: psutil.Process(pid).cmdline()[-1:] == [SLEEP])
        assert is_alive(pid)
        supervisor.kill()
    wait_for(lambda: not is_alive(pid))


def test_ports() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(UsageError, match=f"Port {port} is in use") as caught:
            require_free_port(port)
        assert free_port(port) != port
        assert caught.value.code == "port_in_use"
        assert caught.value.remedy == "Choose another with --port."
        with pytest.raises(UsageError) as caught:
            require_free_port(port, "--gateway-port")
        assert caught.value.remedy == "Choose another with --gateway-port."
    require_free_port(port)
    assert free_port(port) == port
    assert free_port() > 0


def test_a_long_log_is_put_aside(tmp_path: Path) -> None:
    log, aside = tmp_path / "web.log", tmp_path / "web.log.1"
    keep_short(log)
    log.write_text("short")
    keep_short(log)
    assert log.exists()
    with log.open("wb") as file:
        file.truncate(10_000_001)
    keep_short(log)
    assert not log.exists()
    assert aside.stat().st_size == 10_000_001
