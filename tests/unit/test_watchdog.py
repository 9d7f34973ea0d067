"""What a sandbox uses, read from a /proc: here one of plain files."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nox_variants.sandbox.watchdog import (
    PAGE,
    Usage,
    kill,
    memory_files,
    peak,
    peaks,
    stored,
    usage,
)
from ordinary import ordinary_user

if TYPE_CHECKING:
    from collections.abc import Iterator

KB = 1024
ALL = {"memory": 1 << 40, "processes": 1000}


def process(
    proc: Path,
    number: int,
    *,
    pages: int = 0,
    threads: int = 1,
    name: str = "name",
    shares: dict[str, int] | None = None,
    thread_pages: dict[int, int] | None = None,
) -> Path:
    """Make a process's files, as far as they are read (proc(5))."""
    folder = proc / str(number)
    folder.mkdir(parents=True)
    before = " ".join("0" for _ in range(16))
    text = f"{number} ({name}) S {before} {threads} 0 1234 5678 {pages} 18446744073709551615\n"
    (folder / "stat").write_text(text, encoding="utf-8")
    if shares is not None:
        write_shares(folder, shares)
    for thread, size in (thread_pages or {number: pages}).items():
        (folder / "task" / str(thread)).mkdir(parents=True)
        statm = folder / "task" / str(thread) / "statm"
        statm.write_text(f"99 {size} 3 1 0 20 0\n", encoding="utf-8")
    return folder


def write_shares(folder: Path, shares: dict[str, int]) -> None:
    """Write a smaps_rollup, sizes in kB."""
    lines = [f"{name}:   {size} kB" for name, size in shares.items()]
    header = "55d0-7ffd ---p 00000000 00:00 0    [rollup]"
    (folder / "smaps_rollup").write_text("\n".join([header, *lines, ""]), encoding="utf-8")


def test_fields_of_stat() -> None:
    """The fields that are read are threads and resident pages, by their place in proc(5)."""
    names = "state ppid pgrp session tty_nr tpgid flags minflt cminflt majflt cmajflt utime stime"
    names += " cutime cstime priority nice num_threads itrealvalue starttime vsize rss"
    text = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    fields = dict(zip(names.split(), text, strict=False))
    status = Path("/proc/self/status").read_text(encoding="ascii")

    assert f"Threads:\t{fields['num_threads']}\n" in status
    assert names.split().index("num_threads") == 17
    assert names.split().index("rss") == 21


def test_sum(tmp_path: Path) -> None:
    """Memory and threads of all processes are added up; what is no process is passed over."""
    process(tmp_path, 1, pages=100)
    process(tmp_path, 7, pages=20, threads=3)
    process(tmp_path, 12, pages=3)
    (tmp_path / "self").symlink_to("7")
    (tmp_path / "sys").mkdir()

    assert usage(str(tmp_path), **ALL) == Usage(memory=123 * PAGE, processes=5)


def test_nobody(tmp_path: Path) -> None:
    """A sandbox whose processes have all ended uses nothing."""
    assert usage(str(tmp_path), **ALL) == Usage(memory=0, processes=0)


def test_names_that_lie(tmp_path: Path) -> None:
    """A process's name may look like what follows it."""
    process(tmp_path, 1, pages=5, name="x) S 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 0 0 0 0")

    assert usage(str(tmp_path), **ALL) == Usage(memory=5 * PAGE, processes=1)


def test_main_thread_has_ended(tmp_path: Path) -> None:
    """A process without its main thread shows its memory at the other threads only."""
    process(tmp_path, 1, pages=0, threads=3, thread_pages={1: 0, 2: 40, 3: 40})

    assert usage(str(tmp_path), **ALL) == Usage(memory=40 * PAGE, processes=3)


def test_threads_have_just_ended(tmp_path: Path) -> None:
    """Threads that end while they are looked at use nothing."""
    folder = process(tmp_path, 1, pages=0, threads=2, thread_pages={2: 7})
    (folder / "task/2/statm").unlink()
    other = process(tmp_path, 2, pages=0, threads=2)
    (other / "task/2/statm").unlink()
    (other / "task/2").rmdir()
    (other / "task").rmdir()

    assert usage(str(tmp_path), **ALL) == Usage(memory=0, processes=4)


def test_process_has_just_ended(tmp_path: Path) -> None:
    """A process that ends while it is looked at does not count."""
    process(tmp_path, 1, pages=2)
    (tmp_path / "2").mkdir()

    assert usage(str(tmp_path), **ALL) == Usage(memory=2 * PAGE, processes=1)


def test_counting_stops(tmp_path: Path) -> None:
    """A fork bomb is not counted to its end."""
    for number in range(1, 100):
        process(tmp_path, number, threads=10)

    assert usage(str(tmp_path), memory=0, processes=15).processes == 20


def test_no_closer_look(tmp_path: Path) -> None:
    """Resident sets that add up to no more than the limit are enough to know."""
    process(tmp_path, 1, pages=100, shares={"Pss_Anon": 1})

    assert usage(str(tmp_path), memory=100 * PAGE, processes=9).memory == 100 * PAGE


def test_closer_look(tmp_path: Path) -> None:
    """Above the limit, shares count, without the pages of files: the kernel can drop those."""
    for number in (1, 2, 3):
        shares = {"Rss": 400, "Pss": 137, "Pss_Anon": 30, "Pss_File": 100, "Pss_Shmem": 7}
        process(tmp_path, number, pages=100, shares=shares)

    used = usage(str(tmp_path), memory=100 * PAGE, processes=9)
    assert used == Usage(memory=3 * 37 * KB, processes=3, shared=3 * 7 * KB)


def test_closer_look_without_main_thread(tmp_path: Path) -> None:
    """A process without its main thread shows its share at another thread."""
    folder = process(tmp_path, 1, pages=0, threads=2, thread_pages={1: 0, 2: 100})
    (folder / "smaps_rollup").touch()
    write_shares(folder / "task/2", {"Pss_Anon": 50, "Pss_Shmem": 0})

    assert usage(str(tmp_path), memory=PAGE, processes=9).memory == 50 * KB


def test_closer_look_too_late(tmp_path: Path) -> None:
    """A process that has ended in between has no share."""
    process(tmp_path, 1, pages=100)
    process(tmp_path, 2, pages=100, shares={"Pss_Anon": 9})

    assert usage(str(tmp_path), memory=0, processes=9).memory == 9 * KB


def test_closer_look_not_allowed(tmp_path: Path) -> None:
    """A share that cannot be read is at worst all that is resident: nobody hides behind it."""
    folder = process(tmp_path, 1, pages=100, shares={"Pss_Anon": 1})
    (folder / "smaps_rollup").chmod(0)

    with ordinary_user():
        assert usage(str(tmp_path), memory=0, processes=9).memory == 100 * PAGE


@contextmanager
def memory_file(size: int) -> Iterator[int]:
    """Give an open file of memory."""
    file = os.memfd_create("test")
    try:
        os.write(file, bytes(size))
        yield file
    finally:
        os.close(file)


def test_memory_files(tmp_path: Path) -> None:
    """Open files of memory count, each once, whoever has them open; no other file does."""
    with memory_file(3 * PAGE) as one, memory_file(PAGE) as two, Path(__file__).open("rb") as other:
        for number, files in {1: (one, other.fileno()), 2: (one, two), 3: ()}.items():
            folder = tmp_path / str(number) / "fd"
            folder.mkdir(parents=True)
            for file in files:
                (folder / str(file)).symlink_to(f"/proc/self/fd/{file}")
        (tmp_path / "3/fd/9").symlink_to("nowhere")  # it has just been closed
        (tmp_path / "4").mkdir()  # and this process has just ended

        assert memory_files(str(tmp_path)) == 4 * PAGE


def test_memory_files_without_main_thread(tmp_path: Path) -> None:
    """A process without its main thread shows its open files at another thread."""
    with memory_file(PAGE) as file:
        for place in ("1/fd", "1/task/1/fd", "1/task/2/fd"):
            (tmp_path / place).mkdir(parents=True)
        (tmp_path / "1/task/2/fd/3").symlink_to(f"/proc/self/fd/{file}")

        assert memory_files(str(tmp_path)) == PAGE


def test_stored(tmp_path: Path) -> None:
    """What a file system holds is its blocks, and something for each inode."""
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        assert stored(()) == 0
        assert stored((folder, folder)) > stored((folder,)) > 0
    finally:
        os.close(folder)


@pytest.mark.subprocess
def test_kill(tmp_path: Path) -> None:
    """Every process of the folder is killed, and no other; what has ended is passed over."""
    sleepers = [subprocess.Popen(["sleep", "1000"]) for _ in range(3)]
    try:
        for sleeper in sleepers[:2]:
            (tmp_path / str(sleeper.pid)).symlink_to(f"/proc/{sleeper.pid}")
        (tmp_path / "999").mkdir()
        (tmp_path / "1000").symlink_to("nowhere")

        kill(str(tmp_path))

        assert [sleeper.wait() for sleeper in sleepers[:2]] == [-9, -9]
        assert sleepers[2].poll() is None
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()


def test_peaks(tmp_path: Path) -> None:
    """The most that a process has had is read from its status; what is over has none."""
    for number, text in ((1, "VmPeak:\t 9 kB\nVmHWM:\t     704 kB\n"), (2, "VmHWM:\t 80 kB\n")):
        status = process(tmp_path, number) / "status"
        status.write_text(f"Name:\tVmHWM: 1 kB\n{text}", encoding="utf-8")
    (process(tmp_path, 3) / "status").write_text("Name:\tzombie\n", encoding="utf-8")

    assert [peak(f"{tmp_path}/{number}") for number in (1, 2, 3, 4)] == [704 * KB, 80 * KB, 0, 0]
    assert peaks(str(tmp_path)) == 704 * KB


def test_peak_of_this_process() -> None:
    """A process has had some memory."""
    assert peak("/proc/self") > KB
