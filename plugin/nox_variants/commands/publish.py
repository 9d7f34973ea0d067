"""Push variants that passed in the last run to a registry, and no others.

Pushed is the very image that was tried, from the layout or the daemon where the run has left it.
Nothing is built, and nothing is run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from nox_variants import commands, publishing
from nox_variants.errors import UsageError, VariantsError
from nox_variants.images.shipping import ship, shown

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from nox_variants.images.packing import Outgoing
    from nox_variants.images.reference import Reference
    from nox_variants.model import Digest, Variant
    from nox_variants.record import Record
    from nox_variants.store import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("globs", nargs="+", metavar="GLOB", help='which variants, by id: "hello-c(scratch,*)"')
    add(
        "--to",
        required=True,
        metavar="REGISTRY/REPOSITORY",
        help="where they go: with ghcr.io/me/demo, to ghcr.io/me/demo/PROGRAM:BUILD-LINK.RUN;"
        " without a registry, to Docker Hub. Logins are docker's: docker login ghcr.io",
    )
    add(
        "--run",
        dest="run_id",
        default="",
        metavar="ID",
        help="what passed in this run, by its id or how that begins (default: the last one)",
    )
    add(
        "--stand-ins",
        action="store_true",
        help="push those as well that run on a stand-in for the image of that name; an annotation"
        " says so",
    )
    add("--insecure", action="store_true", help="the registry speaks plain HTTP")
    add("--dry-run", action="store_true", help="only say what would be pushed, and where it goes")


def run(args: argparse.Namespace) -> int:
    """Publish what the arguments select.

    Returns:
        0 when all that was selected and has passed is in the registry; else 1, also when nothing
        that was selected has passed.
    """
    from nox_variants import invocation, matrix, terminal  # noqa: PLC0415  # not for --help
    from nox_variants.commands.report import find_run  # noqa: PLC0415
    from nox_variants.engines.outgoing import RunImages  # noqa: PLC0415
    from nox_variants.history import History  # noqa: PLC0415
    from nox_variants.store import Store, default_home  # noqa: PLC0415

    settings = commands.settings(args)
    variants = matrix.select(matrix.expand(settings).variants, only=tuple(args.globs))
    targets = [publishing.target(args.to, variant) for variant in variants]
    with ExitStack() as open_:
        open_.enter_context(terminal.ending())
        history = open_.enter_context(History(invocation.history_file(settings), note=_note))
        run_id = find_run(history, args.run_id)
        records = {record.variant: record for record in history.run(run_id)}
        store, cancelled = Store(default_home(os.environ)), threading.Event()
        images = RunImages(
            store=store,
            folder=invocation.project_folder(settings) / "images",
            environ=os.environ,
            cancelled=cancelled,
        )
        open_.enter_context(closing(images))
        publication = Publication(images=images, keep=history.add, stand_ins=args.stand_ins)
        if not args.dry_run:
            registry = Registry(
                targets[0].registry,
                insecure=args.insecure,
                folder=settings.root,
                store=store,
                environ=os.environ,
                cancelled=cancelled,
            )
            open_.enter_context(closing(registry))
            publication = replace(publication, push=registry.push)
        wanted = [Wanted(v, records.get(v.id), to) for v, to in zip(variants, targets, strict=True)]
        return publication.run(wanted, run_id)


class Images(Protocol):
    """Where images come from; see :class:`nox_variants.engines.outgoing.RunImages`."""

    def check(self, record: Record, variant: Variant) -> None:
        """Look whether an image is here."""

    def taken(self, record: Record, variant: Variant) -> AbstractContextManager[Outgoing]:
        """Return an image for as long as a block lasts."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A variant that was selected, its record in the run, and its name in the registry."""

    variant: Variant
    record: Record | None
    target: Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """One after the other, variants are published, or it is said why they are not.

    Attributes:
        images: Where they are taken from.
        keep: Takes the record of what was published.
        stand_ins: Whether those that run on stand-ins are published.
        push: Pushes an image, and returns its digest; None to send nothing.
    """

    images: Images
    keep: Callable[[Record], object]
    stand_ins: bool = False
    push: Callable[[Outgoing, Reference, Record], Digest] | None = None

    def run(self, wanted: Sequence[Wanted], run_id: str) -> int:
        """Publish variants, go on after failures, and return the exit code."""
        done, failed = 0, 0
        try:
            for each in wanted:
                if reason := publishing.left_out(each.record):
                    _note(f"{each.variant.id}: left out: {reason}")
                elif self._published(each):
                    done += 1
                else:
                    failed += 1
        except (KeyboardInterrupt, SystemExit):
            _note(f"{done} of {len(wanted)} variants were pushed, each of them whole")
            raise
        what = "published" if self.push else "would be published"
        left = len(wanted) - done - failed
        _note(f"run {run_id}: {done} {what}, {left} left out, {failed} not published")
        return int(failed > 0 or done == 0)

    def _published(self, wanted: Wanted) -> bool:
        """Publish a variant that has passed, or say why that is not possible."""
        try:
            self._publish(wanted)
        except VariantsError as error:
            _note(f"{wanted.variant.id}: not published: {error}")
            return False
        return True

    def _publish(self, wanted: Wanted) -> None:
        record, target, variant = wanted.record, wanted.target, wanted.variant
        if record is None:
            raise TypeError(wanted)
        run_image = publishing.run_image(record)
        if run_image.stand_in and not self.stand_ins:
            raise UsageError(
                f"it runs on a stand-in for {run_image.name}, for which it would be taken",
                hint="--stand-ins pushes it all the same, with an annotation that says so.",
            )
        if self.push is None:
            self.images.check(record, variant)
            print(f"{variant.id}: would go to {shown(target)}", flush=True)
            return
        with self.images.taken(record, variant) as image:
            digest = self.push(image, target, record)
        reference = shown(replace(target, digest=digest))
        print(f"{variant.id}: {reference}", flush=True)
        try:
            self.keep(publishing.published(record, reference))
        except VariantsError as error:
            _note(f"{variant.id}: is published, but the record does not say so: {error}")


class Registry:
    """The registry that is pushed to.

    Args:
        name: Its name.
        insecure: Whether it speaks plain HTTP.
        folder: Where the sources are, for git.
        store: Where it is kept what becomes of layers.
        environ: The environment.
        cancelled: Ends everything.
    """

    def __init__(
        self,
        name: str,
        *,
        insecure: bool,
        folder: Path,
        store: Store,
        environ: Mapping[str, str],
        cancelled: threading.Event,
    ) -> None:
        from nox_variants import invocation  # noqa: PLC0415  # not for --help
        from nox_variants.images.packing import Packer  # noqa: PLC0415
        from nox_variants.images.pushing import Pusher  # noqa: PLC0415

        set_ = bool(environ.get("SOURCE_DATE_EPOCH"))
        self._epoch = invocation.source_date_epoch(environ) if set_ else None
        self._source = publishing.source_url(_remote(folder))
        self._packer = Packer(store, progress=_note, cancelled=cancelled)
        self._pusher = Pusher(
            name, insecure=insecure, environ=environ, progress=_note, cancelled=cancelled
        )

    def push(self, image: Outgoing, target: Reference, record: Record) -> Digest:
        """Push an image, and return the digest of its manifest.

        Raises:
            VariantsError: It cannot be read, or the registry did not take it.
        """
        made = publishing.created(image.config, self._epoch)
        said = publishing.manifest_annotations(record, source=self._source, made=made)
        return ship(self._pusher, self._packer, image, target, said)

    def close(self) -> None:
        """Close all connections."""
        self._pusher.close()


def _remote(folder: Path) -> str:
    """Return the address of git's remote ``origin``; empty where there is none."""
    try:
        done = subprocess.run(
            ["git", "-C", os.fspath(folder), "remote", "get-url", "origin"],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
