"""One invocation: a selection of variants is run, shown, recorded. The one place that wires."""

from __future__ import annotations

import datetime as dt
import os
import platform
import secrets
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import nox_variants
from nox_variants import lockfile, matrix, recordfile, runner, sharding
from nox_variants.baseline import NAME, Baseline
from nox_variants.display import display, print_changes, print_report
from nox_variants.errors import UsageError
from nox_variants.history import History
from nox_variants.options import cores
from nox_variants.plan import make_plans
from nox_variants.reports import table
from nox_variants.results import EngineName
from nox_variants.standing import Standing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from nox_variants.engines.docker.pulling import Puller
    from nox_variants.engines.embedded import EmbeddedEngine
    from nox_variants.engines.protocol import Engine
    from nox_variants.images.locking import Locked
    from nox_variants.images.provider import Images
    from nox_variants.model import Settings, Variant
    from nox_variants.options import Options
    from nox_variants.plan import Plan
    from nox_variants.record import Record
    from nox_variants.results import EngineInfo
    from nox_variants.runner import Task
    from nox_variants.sharding import Part
    from nox_variants.standing import Changes
    from nox_variants.store import Store

FOLDER = ".variants"
"""The folder beside the file that holds history and the last run's images."""

_NAMED = 5
"""Variants that a note names before it counts the rest."""

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
    plans = make_plans(settings, variants, transfer=options.transfer)
    part = None
    if options.shard:
        part = sharding.part(plans, options.shard)
        plans = sharding.select(plans, options.shard)
        if not plans:
            print(f"shard {options.shard}: it has no variant", file=stream)
            _write((), options, part)
            return ()
    agreed = _baseline(settings, options)
    with display(stream, len(plans)) as shown:
        engine, why = choose_engine(
            settings,
            options,
            environ=environ,
            progress=shown.note,
            locked=agreed.images if options.locked else None,
        )
        with closing(engine), History(history_file(settings), note=shown.note) as history:
            info = engine.probe()
            shown.note(f"engine: {info.name} {info.version}: {why}")
            for note in info.notes:
                shown.note(f"note: {note}")
            context = _context(settings, info)
            standing = Standing(history, agreed, context.run_id, updating=options.update_baseline)
            records = runner.run(
                plans,
                engine,
                context,
                _Recorder(shown, history),
                jobs=options.jobs or _jobs(info.name),
                fail_fast=options.fail_fast,
                strict=options.strict,
                hold=standing.hold,
            )
            changes = standing.changes(records)
    print_report(records, stream)
    print_changes(changes, stream)
    for note in _agree(settings, plans, records, agreed, options):
        print(note, file=stream)
    seconds = table.duration(time.perf_counter() - begin)
    print(f"{table.summary(records)} in {seconds} ({info.name} {info.version})", file=stream)
    _write(records, options, part)
    if part is None:  # of a shard, the merge has one of the whole
        summarize(records, changes, environ)
    return records


def _write(records: Sequence[Record], options: Options, part: Part | None) -> None:
    if options.json:
        recordfile.write(options.json, recordfile.document(records, part), what="--json")


def history_file(settings: Settings) -> Path:
    """Return where a project's records are kept; its folder is made."""
    return project_folder(settings) / "history.sqlite"


def _baseline(settings: Settings, options: Options) -> Baseline:
    """Return what the run is held against; an empty baseline where there is none."""
    if not lockfile.exists(settings.root):
        if options.locked:
            raise UsageError(
                f"--locked: there is no {settings.root / NAME}",
                hint="`nox -s matrix -- --update-baseline` writes it.",
            )
        return Baseline()
    return lockfile.read(settings.root, host_platform())


def _agree(
    settings: Settings,
    plans: Sequence[Plan],
    records: Sequence[Record],
    agreed: Baseline,
    options: Options,
) -> Iterator[str]:
    """Update the baseline when that is asked for, else say which rows are missing or stale."""
    if not (options.update_baseline or lockfile.exists(settings.root)):
        return
    every = matrix.expand(settings).variants
    if options.update_baseline:
        lockfile.update(settings.root, host_platform(), lambda found: found.updated(records, every))
        rows = sum(record.verdict is not None for record in records)
        yield f"{NAME}: {rows} of {len(records)} variants are in the baseline now"
        return
    if missing := agreed.missing(records):
        yield f"{NAME}: no row of {_some(missing)}: --update-baseline adds them"
    if len(plans) == len(every) and (stale := agreed.stale(every)):
        yield f"{NAME}: stale rows, {_some(stale)}: --update-baseline removes them"


def _some(names: Sequence[str]) -> str:
    """Return names, the first of them where there are many."""
    if len(names) <= _NAMED:
        return ", ".join(names)
    return f"{', '.join(names[:_NAMED])} and {len(names) - _NAMED} more"


def summarize(records: Sequence[Record], changes: Changes, environ: Mapping[str, str]) -> None:
    """Add to the summary of a step of GitHub Actions, where there is one."""
    if not (name := environ.get("GITHUB_STEP_SUMMARY")):
        return
    from nox_variants.reports import markdown  # noqa: PLC0415  # in CI only

    text = markdown.document(records, changes.all, title="nox-variants")
    try:
        with Path(name).open("a", encoding="utf-8") as summary:
            summary.write(f"{text}\n")
    except OSError as error:
        raise UsageError(f"GITHUB_STEP_SUMMARY {name}: {error.strerror}") from error


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
    locked: Locked | None = None,
) -> tuple[Engine, str]:
    """Return the engine that the options ask for, or the best there is, and why it is that one.

    Args:
        settings: The file.
        options: What is asked for.
        environ: The environment.
        progress: Told what takes long.
        locked: What is used of each image, and nothing else; None to use what sources give.

    Raises:
        UsageError: A builder was asked for that the engine cannot use.
        EngineUnavailable: The engine or the builder that was asked for does not answer.
    """
    from nox_variants.engines import selection  # noqa: PLC0415  # what a run needs

    choice = selection.choose(options.engine, environ, builder=options.builder)
    if choice.daemon is None:
        if settings.cache:
            progress(f"cache: {settings.cache.repository} is not used: only buildx can")
        embedded = open_engine(settings, options, environ=environ, progress=progress, locked=locked)
        return embedded, choice.why
    from nox_variants.engines.docker import choosing  # noqa: PLC0415  # one engine is loaded
    from nox_variants.engines.docker.engine import DockerEngine  # noqa: PLC0415
    from nox_variants.engines.docker.pulling import Puller  # noqa: PLC0415

    store, cancelled = _store(environ), threading.Event()
    builder = choosing.choose(
        choice.daemon,
        environ,
        store if options.use_cache else None,
        name=options.builder,
        note=progress,
    )
    if settings.cache:
        builder = choosing.with_cache(builder, settings.cache, choice.daemon, progress)
    puller = Puller(
        daemon=choice.daemon,
        builder=builder,
        store=store,
        refresh=not options.use_cache,
        progress=progress,
        cancelled=cancelled,
        mirrors=settings.mirrors,
        environ=environ,
    )

    def images(locked: Locked | None) -> Images:
        return _images(
            store,
            settings,
            options,
            environ=environ,
            progress=progress,
            cancelled=cancelled,
            pull=puller,
            locked=locked,
        )

    engine = DockerEngine(
        daemon=choice.daemon,
        builder=builder,
        store=store,
        images=images(locked),
        helper=next(image for image in settings.images if image.name == _HELPER),
        # No record has the helper: it is only in the lock where a variant uses its image, too.
        tools=images(locked if any(name == _HELPER for name, _ in locked or ()) else None),
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
    locked: Locked | None = None,
) -> EmbeddedEngine:
    """Return the embedded engine; whether bubblewrap works here is found out meanwhile."""
    from nox_variants.sandbox import bubblewrap  # noqa: PLC0415  # one engine is loaded

    with ThreadPoolExecutor(1) as meanwhile:
        # 10 ms of other processes while modules are loaded; an answer is kept for the probe.
        meanwhile.submit(bubblewrap.probe)
        from nox_variants.engines.embedded import EmbeddedEngine  # noqa: PLC0415

        store, cancelled = _store(environ), threading.Event()
        images = _images(
            store,
            settings,
            options,
            environ=environ,
            progress=progress,
            cancelled=cancelled,
            locked=locked,
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
    locked: Locked | None = None,
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
        locked=locked,
        mirrors=settings.mirrors,
    )


def _jobs(engine: EngineName) -> int:
    """Return how many tasks keep all cores busy: each waits, for mounts and disks or a daemon."""
    return cores() + 1 if engine is EngineName.EMBEDDED else cores() * 2


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
            **({"builder": info.builder} if info.builder else {}),
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
