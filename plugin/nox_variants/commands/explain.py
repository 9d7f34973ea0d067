"""Explain a variant, or a file in an image: the plan, the facts, what is missing and what to do.

A variant is built where it is not built yet, and not run: what a run showed, its record says. A
file of your own is looked at as if it lay in the root of the image; it is never executed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
import shutil
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

from nox_variants import advice, commands, diagnosis, dockerfile, linkage
from nox_variants.errors import BuildFailed, ImageError, UsageError, did_you_mean
from nox_variants.model import Smoke, SourceKind, Verdict
from nox_variants.plan import make_plans
from nox_variants.reports import explanation
from nox_variants.reports.escaping import clean
from nox_variants.reports.explanation import Explanation, Failure, FileExplanation
from nox_variants.results import FileFacts, Linkage
from nox_variants.subject import Subject

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from nox_variants.engines.protocol import Engine
    from nox_variants.matrix import Dropped, Expansion
    from nox_variants.model import Image, Selector, Settings, Variant, VariantId
    from nox_variants.options import Options
    from nox_variants.record import Record
    from nox_variants.reports.explanation import Section
    from nox_variants.results import Build, PreparedImage


class Images(Protocol):
    """Who gives images; see :class:`nox_variants.images.provider.Images`."""

    def prepare(self, image: Image) -> PreparedImage:
        """Return an image whose root is in the store."""

    def root(self, image: PreparedImage) -> Path:
        """Return the folder that holds a prepared image's files."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("id", nargs="?", metavar="ID", help='a variant, "hello-c(scratch,static)"')
    parser.add_argument("--binary", type=Path, metavar="PATH", help="a file of your own instead")
    parser.add_argument(
        "--image", metavar="NAME", help="the image that the file is put in, with --binary"
    )
    commands.add_engine_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")
    parser.epilog = (
        "The exit code is 0 when a variant could be explained, and 1 when a rule of the file drops"
        " it. With --binary, it is 0 when the file is predicted to work, and 1 when not."
    )


def run(args: argparse.Namespace) -> int:
    """Explain what the arguments name.

    Returns:
        0, or 1 for a dropped combination and for a file that is predicted not to work.
    """
    check(args.id, binary=args.binary, image=args.image)
    parsed = commands.options(args)
    if args.id is None:
        return _file(args, parsed)
    return _variant(args, parsed)


def check(name: str | None, *, binary: Path | None, image: str | None) -> None:
    """Refuse what cannot be meant.

    Raises:
        UsageError: Always with what to do instead.
    """
    if (name is None) is (binary is None) or (binary is None) is not (image is None):
        raise UsageError(
            "explain: takes a variant, or a file and an image",
            hint='Give an id, such as "hello-c(scratch,static)", or --binary PATH --image NAME.',
        )


# --- a variant ------------------------------------------------------------------------------------


def _variant(args: argparse.Namespace, options: Options) -> int:
    from nox_variants import invocation, matrix  # noqa: PLC0415  # not for --help
    from nox_variants.history import History  # noqa: PLC0415

    settings = commands.settings(args)
    expansion = matrix.expand(settings)
    if dropped := find_dropped(expansion, args.id):
        print(excluded(settings, dropped))
        return 1
    variant = commands.find(expansion, args.id)
    with History(invocation.history_file(settings), note=_note) as history:
        records = {
            each.id: record
            for each in expansion.variants
            if each.program == variant.program and (record := history.last(each.id))
        }
    engine, why = invocation.choose_engine(settings, options, environ=os.environ, progress=_note)
    with closing(engine):
        try:
            info = engine.probe()
            _note(f"engine: {info.name} {info.version}: {why}")
            epoch = invocation.source_date_epoch(os.environ)
            known = explain(engine, settings, expansion, variant, records, epoch=epoch)
        finally:
            engine.cancel()
    _show(known, explanation.of_variant(known), machine=args.json)
    return 0


def find_dropped(expansion: Expansion, name: str) -> Dropped | None:
    """Return the dropped combination of an id, white space aside as in Nox."""
    bare = re.sub(r"\s", "", name)
    return next((each for each in expansion.dropped if each.id == bare), None)


def excluded(settings: Settings, dropped: Dropped) -> str:
    """Return the sentence that says which rule dropped a combination."""
    rules = (rule for program in settings.programs for rule in program.exclude)
    rule = next(each for each in rules if each.location == dropped.rule)
    return (
        f"{dropped.id} is no variant: {dropped.rule}: {dropped.rule.path}: {_rule(rule)} drops it"
    )


def _rule(rule: Selector) -> str:
    axes = (("run", rule.run), ("link", rule.link), ("build", rule.build))
    words = (f"{name}: [{', '.join(globs)}]" for name, globs in axes if globs is not None)
    return f"{{{', '.join(words)}}}"


def explain(
    engine: Engine,
    settings: Settings,
    expansion: Expansion,
    variant: Variant,
    records: Mapping[VariantId, Record],
    *,
    epoch: int,
) -> Explanation:
    """Build what is not built yet, and return all that is known of a variant.

    Args:
        engine: Builds it, and reads its image.
        settings: The file that the variant comes from.
        expansion: All variants of the file.
        variant: The variant.
        records: The last record of each variant of its program that has one.
        epoch: ``SOURCE_DATE_EPOCH``, in seconds since 1970.

    Raises:
        VariantsError: An image cannot be had, or something else went wrong.
    """
    (plan,) = make_plans(settings, [variant])
    known = Explanation(
        plan=plan,
        build_image=engine.prepare(plan.build.image),
        run_image=engine.prepare(plan.run.image),
        dockerfile="",
        last=records.get(variant.id),
    )
    try:
        known = _built(engine, known, engine.build(plan.build, known.build_image))
    except BuildFailed as error:
        known = dataclasses.replace(known, failure=Failure(message=error.message, log=error.log))
    known = dataclasses.replace(known, dockerfile=_dockerfile(known, epoch))
    if not known.fails:
        return known
    near = (each.id for each in expansion.variants if advice.is_near(variant, each))
    return dataclasses.replace(
        known,
        remedies=advice.alternatives(variant.id, variant, records.values()),
        not_run=tuple(each for each in near if each not in {variant.id, *records}),
    )


def _built(engine: Engine, known: Explanation, build: Build) -> Explanation:
    plan, base = known.plan, known.run_image
    image, artifact = engine.assemble(plan, base, build), build.artifacts[0]
    subject = Subject(
        facts=engine.inspect(image),
        artifact=artifact.facts,
        smoke=plan.smoke,
        machine=platform.machine(),
        run_image=plan.variant.run_image,
        cmd=image.argv,
        user=image.user,
    )
    return dataclasses.replace(
        known,
        plan=engine.resolve(plan, base, build),
        artifact=artifact,
        sizes=image.sizes,
        subject=subject,
        predicted=diagnosis.predict(subject),
        mismatch=linkage.mismatches(plan, build) or "",
    )


def _dockerfile(known: Explanation, epoch: int) -> str:
    """Return the variant's Dockerfile, in which a stand-in has the name of what it stands for."""
    plan = known.plan
    images = ((plan.build.image, known.build_image), (plan.run.image, known.run_image))
    bases = [_base(*each) for each in images]
    stand_ins = dict.fromkeys(base.name for base in bases if base.stand_in)
    notes = [f"# {name}: here a stand-in, not the image of that name.\n" for name in stand_ins]
    try:
        return "".join(notes) + dockerfile.render(plan, *bases, epoch=epoch, buildkit=True)
    except ImageError as error:
        return str(error)


def _base(image: Image, prepared: PreparedImage) -> dockerfile.Base:
    if prepared.kind is SourceKind.SCRATCH:
        return dockerfile.Base(name=image.name, reference=dockerfile.SCRATCH, env=prepared.env)
    if prepared.kind is SourceKind.REGISTRY:
        source = next(each for each in image.sources if each.kind is SourceKind.REGISTRY)
        return dockerfile.Base(
            name=image.name, reference=source.reference, setup=source.setup, user=image.user
        )
    return dockerfile.Base(
        name=image.name,
        reference=image.name,
        user=prepared.user,
        stand_in=prepared.stand_in,
    )


# --- a file ---------------------------------------------------------------------------------------


def _file(args: argparse.Namespace, options: Options) -> int:
    image, root = find_image(args)
    known = explain_file(_images(options, root), image, args.binary)
    _show(known, explanation.of_file(known), machine=args.json)
    return int(known.predicted.verdict is Verdict.FAILS)


def find_image(args: argparse.Namespace) -> tuple[Image, Path]:
    """Return an image of the file, or of the catalogue, and the folder of archives.

    Raises:
        UsageError: There is no image of that name.
    """
    from nox_variants import config  # noqa: PLC0415  # not for --help

    images, root = config.shipped_images(), Path()
    if args.file or commands.DEFAULT_FILE.exists():
        settings = commands.settings(args)
        images, root = settings.images, settings.root
    names = [image.name for image in images]
    if args.image not in names:
        hint = did_you_mean(args.image, names).strip() or f"Known are {', '.join(names)}."
        raise UsageError(f"--image: unknown image {args.image!r}", hint=hint)
    return images[names.index(args.image)], root


def _images(options: Options, root: Path) -> Images:
    import threading  # noqa: PLC0415  # not for --help

    from nox_variants.images.provider import Images  # noqa: PLC0415
    from nox_variants.invocation import host_platform  # noqa: PLC0415
    from nox_variants.store import Store, default_home  # noqa: PLC0415

    return Images(
        Store(default_home(os.environ)),
        policy=options.images,
        refresh=False,
        progress=_note,
        cancelled=threading.Event(),
        root=root,
        host=host_platform(),
        environ=os.environ,
    )


def explain_file(images: Images, image: Image, file: Path) -> FileExplanation:
    """Return all that is known of a file, placed in the root of an image; nothing is executed.

    Raises:
        UsageError: There is no regular file.
        VariantsError: The image cannot be had.
    """
    from nox_variants import rootfs, startup  # noqa: PLC0415  # not for --help

    found = _regular(file)
    prepared = images.prepare(image)
    root, path = images.root(prepared), f"/{file.name}"
    there = rootfs.resolve((root,), path)
    if there is not None and there.is_dir():
        raise UsageError(
            f"--binary {file}: {image.name} has a folder {path}", hint="Give the file another name."
        )
    with tempfile.TemporaryDirectory(prefix="nox-variants-") as name:
        shutil.copy(found, Path(name, file.name))
        facts = startup.image_facts((root, Path(name)), (path,), prepared.env, "/")
    subject = Subject(
        facts=facts,
        artifact=facts.startup.steps[0].facts or FileFacts(linkage=Linkage.OTHER),
        smoke=Smoke(),
        machine=platform.machine(),
        run_image=image.name,
        cmd=(path,),
    )
    return FileExplanation(
        file=file,
        size=found.stat().st_size,
        image=prepared,
        subject=subject,
        predicted=diagnosis.predict(subject),
    )


def _regular(file: Path) -> Path:
    try:
        found = file.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, up to Python 3.12
        why = getattr(error, "strerror", None) or "a loop of links"
        raise UsageError(f"--binary {file}: {why}", hint="Name a program's file.") from error
    if not found.is_file():
        raise UsageError(f"--binary {file}: is no regular file", hint="Name a program's file.")
    return found


# --- output ---------------------------------------------------------------------------------------


def _show(
    known: Explanation | FileExplanation, sections: Sequence[Section], *, machine: bool
) -> None:
    if machine:
        values = explanation.values(known)
        print(json.dumps(values, indent=1, ensure_ascii=False, default=explanation.encoded))
    else:
        show(sections, sys.stdout)


def show(sections: Sequence[Section], stream: TextIO) -> None:
    """Print sections: in colour on a terminal, plainly elsewhere."""
    if not stream.isatty():
        stream.write(explanation.text(sections))
        return
    from rich.console import Console  # noqa: PLC0415  # only a terminal needs it

    console = Console(file=stream, highlight=False)
    for number, section in enumerate(sections):
        if number:
            console.print()
        title = clean(section.title)
        heading = "bold red" if section.loud else "bold"
        console.print(title, style=heading, markup=False, soft_wrap=True)
        for line in section.lines:
            console.print(
                line, style=explanation.style(section, line), markup=False, soft_wrap=True
            )


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
