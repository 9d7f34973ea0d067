"""One invocation: a selection of variants is run, shown, recorded. The one place that wires."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import nox_variants
from nox_variants import runner
from nox_variants.display import display, print_report
from nox_variants.errors import UsageError
from nox_variants.history import History
from nox_variants.options import cores
from nox_variants.plan import make_plans
from nox_variants.record import SCHEMA, Record, to_json
from nox_variants.reports import table
from nox_variants.results import EngineName

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nox_variants.engines.docker.pulling import Puller
    from nox_variants.engines.embedded import EmbeddedEngine
    from nox_variants.engines.protocol import Engine
    from nox_variants.images.provider import Images
    from nox_variants.model import Settings, Variant
    from nox_variants.options import Options
    from nox_variants.results import EngineInfo
    from nox_variants.runner import Task
    from nox_variants.store import Store

FOLDER = ".variants"
"""The folder beside the file that holds history and the last run's images."""

_HELPER = "python:slim"
"""The image that a daemon runs what smoke runs bring in."""

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
"""``uname -m`` words to GOARCH words, which OCI platforms use (OCI image-spec, config.md)."""


def run(
    settings: Settings,
    variants: Sequence[Variant],
    options: Options,
    *,
    stream: TextIO,
    environ: Mapping[str, str],
) -> tuple[Record, ...]:
    """Run variants, show how it goes, keep every record as soon as it is there.

    Args:
        settings: The file.
        variants: The selection.
        options: How it is done.
        stream: Where it is shown.
        environ: The environment, for ``NOX_VARIANTS_HOME`` and ``SOURCE_DATE_EPOCH``.

    Returns:
        One record per variant.

    Raises:
        VariantsError: When the run cannot begin or cannot be recorded.
    """
    begin = time.perf_counter()
    folder = project_folder(settings)
    with display(stream, len(variants)) as shown:
        engine, why = choose_engine(settings, options, environ=environ, progress=shown.note)
        with closing(engine), History(folder / "history.sqlite") as history:
            info = engine.probe()
            shown.note(f"engine: {info.name} {info.version}: {why}")
            for note in info.notes:
                shown.note(f"note: {note}")
            records = runner.run(
                make_plans(settings, variants),
                engine,
                _context(settings, info),
                _Recorder(shown, history),
                jobs=options.jobs or cores() * (1 if info.name is EngineName.EMBEDDED else 2),
                fail_fast=options.fail_fast,
                strict=options.strict,
            )
    print_report(records, stream)
    seconds = table.duration(time.perf_counter() - begin)
    print(f"{table.summary(records)} in {seconds} ({info.name} {info.version})", file=stream)
    if options.json:
        write_json(options.json, records)
    return records


class _Recorder:
    """An observer that keeps records and tells the display."""

    def __init__(self, shown: runner.Observer, history: History) -> None:
        self._shown = shown
        self._history = history
        self.started: Callable[[Task], None] = shown.started
        self.finished: Callable[[Task, object], None] = shown.finished

    def recorded(self, record: Record) -> None:
        """Keep a record, then show it."""
        self._history.add(record)
        self._shown.recorded(record)


def choose_engine(
    settings: Settings,
    options: Options,
    *,
    environ: Mapping[str, str],
    progress: Callable[[str], None],
) -> tuple[Engine, str]:
    """Return the engine that the options ask for, or the best there is, and why it is that one.

    Raises:
        EngineUnavailable: The engine that was asked for does not answer.
    """
    from nox_variants.engines import selection  # noqa: PLC0415  # what a run needs

    choice = selection.choose(options.engine, environ)
    if choice.daemon is None:
        return open_engine(settings, options, environ=environ, progress=progress), choice.why
    from nox_variants.engines.docker import builders  # noqa: PLC0415  # one engine is loaded
    from nox_variants.engines.docker.engine import DockerEngine  # noqa: PLC0415
    from nox_variants.engines.docker.pulling import Puller  # noqa: PLC0415

    store, cancelled = _store(environ), threading.Event()
    builder = builders.choose(choice.daemon, environ, store if options.use_cache else None)
    puller = Puller(
        daemon=choice.daemon,
        builder=builder,
        store=store,
        refresh=not options.use_cache,
        progress=progress,
        cancelled=cancelled,
    )
    images = _images(
        store,
        settings,
        options,
        environ=environ,
        progress=progress,
        cancelled=cancelled,
        pull=puller,
    )
    engine = DockerEngine(
        daemon=choice.daemon,
        builder=builder,
        store=store,
        images=images,
        helper=next(image for image in settings.images if image.name == _HELPER),
        roots=settings.roots,
        output=project_folder(settings),
        use_cache=options.use_cache,
        epoch=source_date_epoch(environ),
        host=host_platform(),
        revision=_git_commit(settings.root) or "",
        cancelled=cancelled,
    )
    return engine, f"{choice.why}; it builds with {builder.name}"


def open_engine(
    settings: Settings,
    options: Options,
    *,
    environ: Mapping[str, str],
    progress: Callable[[str], None],
) -> EmbeddedEngine:
    """Return the embedded engine; whether bubblewrap works here is found out meanwhile."""
    from nox_variants.sandbox import bubblewrap  # noqa: PLC0415  # one engine is loaded

    with ThreadPoolExecutor(1) as meanwhile:
        # 10 ms of other processes while modules are loaded; an answer is kept for the probe.
        meanwhile.submit(bubblewrap.probe)
        from nox_variants.engines.embedded import EmbeddedEngine  # noqa: PLC0415

        store, cancelled = _store(environ), threading.Event()
        images = _images(
            store, settings, options, environ=environ, progress=progress, cancelled=cancelled
        )
        return EmbeddedEngine(
            store=store,
            images=images,
            roots=settings.roots,
            output=project_folder(settings),
            use_cache=options.use_cache,
            epoch=source_date_epoch(environ),
            host=host_platform(),
            cancelled=cancelled,
        )


def _store(environ: Mapping[str, str]) -> Store:
    from nox_variants.store import Store, default_home  # noqa: PLC0415  # what a run needs

    return Store(default_home(environ))


def _images(
    store: Store,
    settings: Settings,
    options: Options,
    *,
    environ: Mapping[str, str],
    progress: Callable[[str], None],
    cancelled: threading.Event,
    pull: Puller | None = None,
) -> Images:
    from nox_variants.images.provider import Images  # noqa: PLC0415  # what a run needs

    return Images(
        store,
        policy=options.images,
        refresh=not options.use_cache,
        progress=progress,
        cancelled=cancelled,
        root=settings.root,
        host=host_platform(),
        environ=environ,
        pull=pull,
    )


def project_folder(settings: Settings) -> Path:
    """Return the project's own folder, made and ignored by git."""
    folder = settings.root / FOLDER
    try:
        folder.mkdir(exist_ok=True)
        ignore = folder / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{folder}: cannot be made: {error.strerror}", hint="Is the folder writable for you?"
        ) from error
    return folder


def source_date_epoch(environ: Mapping[str, str]) -> int:
    """Return ``SOURCE_DATE_EPOCH`` (reproducible-builds.org), or 0 when it is not set."""
    text = environ.get("SOURCE_DATE_EPOCH", "") or "0"
    if not text.isdecimal() or int(text) >= 2**33:
        raise UsageError(
            f"SOURCE_DATE_EPOCH: {text!r} is no number of seconds since 1970",
            hint="Unset it, or give what `git log -1 --format=%ct` prints.",
        )
    return int(text)


def write_json(file: Path, records: Sequence[Record]) -> None:
    """Write records as JSON: the whole file or nothing.

    Raises:
        UsageError: When the file cannot be written.
    """
    run_id = records[0].run_id if records else ""
    values = {"schema": SCHEMA, "run_id": run_id, "records": [to_json(each) for each in records]}
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=file.parent, prefix=f".{file.name}.", delete=False
        ) as draft:
            try:
                json.dump(values, draft, indent=1, ensure_ascii=False)
                draft.write("\n")
                draft.flush()
                Path(draft.name).chmod(0o644)
                Path(draft.name).replace(file)
            except BaseException:
                Path(draft.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise UsageError(
            f"--json {file}: cannot be written: {error.strerror}", hint="Does its folder exist?"
        ) from error


def _context(settings: Settings, info: EngineInfo) -> runner.RunContext:
    now = dt.datetime.now(dt.UTC)
    return runner.RunContext(
        run_id=f"{now:%Y%m%dT%H%M%S%fZ}-{secrets.token_hex(4)}",
        platform=host_platform(),
        machine=platform.machine(),
        engine=info,
        git_commit=_git_commit(settings.root),
        tools={
            "nox_variants": nox_variants.__version__,
            "python": platform.python_version(),
        },
        clock=lambda: dt.datetime.now(dt.UTC),
    )


def host_platform() -> str:
    """Return this machine's platform in OCI words: ``linux/amd64``."""
    machine = platform.machine()
    return f"{sys.platform}/{_ARCHITECTURES.get(machine, machine)}"


def _git_commit(folder: Path) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", os.fspath(folder), "rev-parse", "--verify", "-q", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return done.stdout.strip() or None
