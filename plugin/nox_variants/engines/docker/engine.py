"""The docker engine: plans as Dockerfiles, images as tags, smoke runs as containers."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import secrets
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from nox_variants import dockerfile, names
from nox_variants.engines import assembly, bundling
from nox_variants.engines.builds import Builds, Log, failure
from nox_variants.engines.compiling import check_shell
from nox_variants.engines.docker import (
    artifacts,
    builders,
    companion,
    containers,
    debugging,
    refusals,
)
from nox_variants.engines.docker.bringing import Bringer, reference
from nox_variants.engines.docker.connection import DaemonError, explained
from nox_variants.engines.docker.labels import LABEL, OWNER, owner
from nox_variants.engines.docker.leftovers import remove_left_behind
from nox_variants.engines.docker.offline import Offline
from nox_variants.engines.docker.pulling import environment, find_image
from nox_variants.engines.docker.pulse import Pulse
from nox_variants.engines.docker.sizes import Made, Measurer
from nox_variants.engines.inspection import Files, Inspector, shipped
from nox_variants.errors import BuildFailed, StoreError
from nox_variants.model import Digest
from nox_variants.oci.digest import canonical_json
from nox_variants.results import VariantImage
from nox_variants.sandbox import probes, shell
from nox_variants.sources import Sources

if TYPE_CHECKING:
    from pathlib import Path

    from docker.models.images import Image as DockerImage

    from nox_variants.engines.builds import Output
    from nox_variants.engines.bundling import Bundled
    from nox_variants.engines.docker.builders import Builder
    from nox_variants.engines.docker.connection import Daemon
    from nox_variants.engines.protocol import Images
    from nox_variants.model import Image, Pairs, Smoke
    from nox_variants.plan import BuildStage, Plan
    from nox_variants.results import (
        Build,
        EngineInfo,
        ImageFacts,
        Observation,
        PreparedImage,
    )
    from nox_variants.store import Store

STAGES = "nox-variants/build"
"""The repository of compiled build stages."""


class DockerEngine:
    """Builds and runs plans with a Docker or Podman daemon.

    Args:
        daemon: The daemon.
        builder: What builds Dockerfiles there.
        store: Where artifacts and stand-ins are kept.
        images: Gives stand-ins.
        helper: An image with Python, for what smoke runs bring.
        tools: Gives the helper where no variant uses it; the same as gives the others when None.
        roots: The folders of the project's files: no source leads out of its own.
        output: The project's folder, for the Dockerfiles of the last run.
        use_cache: Whether images and builds of earlier runs are good.
        epoch: ``SOURCE_DATE_EPOCH``, in seconds since 1970.
        host: ``linux/amd64``: what is built and run.
        revision: The commit of the sources, or empty.
        cancelled: Ends everything when it is set.
    """

    def __init__(
        self,
        *,
        daemon: Daemon,
        builder: Builder,
        store: Store,
        images: Images,
        helper: Image,
        tools: Images | None = None,
        roots: tuple[Path, ...],
        output: Path,
        use_cache: bool,
        epoch: int,
        host: str,
        revision: str,
        cancelled: threading.Event,
    ) -> None:
        self._daemon = daemon
        self._builder = builder
        self._store = store
        self._images = images
        self._helper = helper
        self._tools = tools or images
        self._output = output
        self._use_cache = use_cache
        self._epoch = epoch
        self._host = host
        self._revision = revision
        self._cancelled = cancelled
        self._sources = Sources(store, roots=roots)
        self._bringer = Bringer(
            daemon=daemon,
            remote=builder.remote,
            store=store,
            images=images,
            host=host,
            cancelled=cancelled,
        )
        self._builds = Builds(
            store=store,
            engine=f"{daemon.info.name} {daemon.id}{f' {builder.name}' if builder.remote else ''}",
            epoch=epoch,
            platform=host,
            use_cache=use_cache,
            cancelled=cancelled,
        )
        self._inspector = Inspector(store)
        self._layers = assembly.Assembler(
            store, output, epoch=epoch, platform=host, cancelled=cancelled
        )
        self._measurer = Measurer(
            store=store, images=images, layers=self._layers, cancelled=cancelled
        )
        self._reaper = containers.Reaper()
        self._offline = Offline(daemon)
        self._lock = threading.Lock()
        self._prepared: dict[Image, PreparedImage] = {}
        self._assembled: dict[str, Made] = {}
        self._whole: dict[str, PreparedImage] = {}

    def probe(self) -> EngineInfo:
        """Return the daemon's name and version, after removing what dead runs left in it."""
        remove_left_behind(self._daemon)
        return dataclasses.replace(self._daemon.info, builder=self._builder.name)

    def prepare(self, image: Image) -> PreparedImage:
        """Bring an image to the daemon, and to the builder where that is another's."""
        prepared = self._images.prepare(image)
        self._bringer.bring(prepared)
        with self._lock:
            self._prepared[image] = prepared
        return prepared

    def build(self, stage: BuildStage, image: PreparedImage) -> Build:
        """Compile a stage with a build of its own, so that variants find it in the cache."""
        source = self._sources.snapshot(stage.source)
        key = self._builds.key(stage, image, source)
        tag = f"{STAGES}:{key[:16]}"

        def compile_(staging: Path, log: Log) -> list[Output]:
            work = staging / "work"
            work.mkdir()
            job = builders.Job(
                dockerfile=self._stage(stage, image),
                context=source.root,
                tag=tag,
                labels=((f"{LABEL}stage", key),),
                network=stage.network,
                cache=self._use_cache,
                contexts=self._bringer.contexts((image,)),
                cache_tags=(names.cache_tag(stage.name),),
            )
            self._check_cancelled()
            try:
                if self._builder.buildkit:
                    job = dataclasses.replace(job, tag="", labels=(), output=work)
                    self._build_it(job, log)
                    return artifacts.collected(stage, work)
                self._build_it(job, log)
                return artifacts.copied(
                    self._daemon, self._reaper, tag, stage, work, cancelled=self._cancelled
                )
            except BuildFailed as error:
                words = artifacts.failed_command(error.message, stage.commands, stage.image.name)
                raise BuildFailed(words) from error
            except DaemonError as error:
                raise artifacts.missing(error, stage) from error

        def intact(_: Path) -> bool:
            return self._builder.buildkit or self._find(tag) is not None

        return self._builds.get(key, compile_, intact)

    def _build_it(self, job: builders.Job, log: Log) -> None:
        with Pulse(self._daemon, self._cancelled) as pulse:
            try:
                self._builder.build(job, log.write, pulse)
            except DaemonError:
                pulse.check()
                raise

    def _stage(self, stage: BuildStage, image: PreparedImage) -> str:
        base = self._bringer.base(image)
        if self._builder.buildkit:
            return dockerfile.render_artifacts(stage, base, epoch=self._epoch)
        return dockerfile.render_stage(stage, base, epoch=self._epoch, buildkit=False, kept=False)

    def assemble(self, plan: Plan, base: PreparedImage, build: Build) -> VariantImage:
        """Build the variant's Dockerfile, unless the daemon still has the image that it gave."""
        tag = f"{plan.variant.program}:{names.image_tag(plan.variant)}"
        if plan.run.install:
            check_shell((self._images.root(base),), base.name)
        bundle = self._bundle(plan, base, build)
        plan = bundling.with_libraries(plan, bundle)
        source = self._sources.snapshot(plan.build.source)
        job = builders.Job(
            dockerfile=self._dockerfile(plan, base),
            context=source.root,
            tag=tag,
            labels=self._labels(plan),
            network=plan.build.network,
            contexts=self._bringer.contexts((self._prepared[plan.build.image], base)),
            cache_tags=tuple(
                map(names.cache_tag, (names.bake_target(plan.variant), plan.build.name))
            ),
        )
        key = _identity(job, self._daemon.id, base.digest, build.key)
        found = self._owned(tag)
        if found is None or not self._use_cache or self._built(key) != found.id:
            found = self._build(job, plan)
            with self._store.publish("facts", key, replace=True) as staging:
                self._store.write_json(staging / "image.json", {"id": found.id})
        return self._image(Made(base, build, plan, bundle), found, tag)

    def resolve(self, plan: Plan, base: PreparedImage, build: Build) -> Plan:
        """Find the libraries of the plan's bundle in its build image."""
        return bundling.with_libraries(plan, self._bundle(plan, base, build))

    def _bundle(self, plan: Plan, base: PreparedImage, build: Build) -> tuple[Bundled, ...]:
        if not plan.run.bundle:
            return ()
        beside = self._layers.files(assembly.artifacts(build)).root
        root = self._images.root(self._prepared[plan.build.image])
        return bundling.libraries((root, beside), plan.build.artifacts, base.env)

    def _build(self, job: builders.Job, plan: Plan) -> DockerImage:
        log = Log(io.BytesIO())
        try:
            self._build_it(job, log)
        except BuildFailed as error:
            if plan.run.install:  # else it is not the program that failed: it was compiled before
                words = artifacts.failed_command(
                    error.message, plan.run.install, plan.run.image.name
                )
                raise failure(BuildFailed(words), log, self._store.home) from error
            raise DaemonError(f"{job.tag}: the image was not made: {error.message}") from error
        return self._bringer.found(job.tag)

    def _built(self, key: str) -> str | None:
        """Return the id of the image that an earlier run built of the very same."""
        folder = self._store.find("facts", key)
        if folder is None:
            return None
        with suppress(StoreError, LookupError):
            return str(self._store.read_json(folder / "image.json")["id"])
        return None

    def smoke(self, image: VariantImage, smoke: Smoke) -> Observation:
        """Run the image's command in a container."""
        self._check_cancelled()
        run = containers.Run(
            image=image.config_digest,
            cmd=(*image.cmd, *smoke.args),
            env=smoke.env,
            labels=((OWNER, owner()), (f"{LABEL}variant", image.tag)),
            agrees=lambda words: self._may_be(image, words),
            brought=self._brought(image, smoke),
        )
        return containers.heard_of(
            self._daemon.info.name,
            lambda: containers.observe(
                self._daemon, run, smoke, self._offline, self._reaper, self._cancelled
            ),
        )

    def _may_be(self, image: VariantImage, words: str) -> bool:
        """Tell whether the kernel may have said such words of an image's command."""
        startup = self.inspect(image).startup
        files = (*startup.steps, *((startup.loader,) if startup.loader else ()))
        there = bool(files) and all(step.facts for step in files)
        return not (there and words.lower() == refusals.ABSENT)

    def _brought(self, image: VariantImage, smoke: Smoke) -> companion.Brought | None:
        """Return what a smoke run needs beside its container: nothing, as a rule."""
        wanted = probes.fixtures(smoke)
        if wanted is None:
            return None
        helper = self._prepared.get(self._helper) or self._tools.prepare(self._helper)
        with self._lock:
            self._prepared[self._helper] = helper
        bundle = self.inspect(image).root.certificates if wanted.authority else ""
        self._bringer.load(helper)
        return companion.Brought(
            fixtures=wanted,
            helper=reference(helper),
            files=probes.trusting(self._files(image).lower, bundle, wanted),
        )

    def inspect(self, image: VariantImage) -> ImageFacts:
        """Read the root of the image's base, and what the variant adds, out of the store."""
        return self._inspector.facts(image, self._files(image))

    def _files(self, image: VariantImage) -> Files:
        made = self._assembled[image.config_digest]
        if made.plan.run.install:
            whole = self._taken_out(image)
            return Files(base=whole.digest, root=lambda: self._images.root(whole), layers=())
        copied = assembly.copies(made.plan, made.build, made.bundle)
        if made.plan.run.single_stage:
            copied = [*assembly.artifacts(made.build), *copied]
        on = (self._images.root(made.base),) if made.plan.run.files else ()
        return Files(
            base=made.base.digest,
            root=lambda: self._images.root(made.base),
            layers=(self._layers.files(copied, on).root,),
            artifacts=shipped(made.plan, made.build),
        )

    def _taken_out(self, image: VariantImage) -> PreparedImage:
        """Return an image of the daemon in the store: what commands did to it is only there."""
        with self._lock:
            if image.config_digest in self._whole:
                return self._whole[image.config_digest]
        with self._store.staging() as staging:
            file = staging / "image.tar"
            with explained(f"reading {image.tag}"), file.open("wb") as out:
                saved = self._daemon.client.images.get(image.config_digest).save()
                out.writelines(saved)
            whole = self._images.unpacked(file, image.tag)
        with self._lock:
            self._whole[image.config_digest] = whole
        return whole

    def debug(
        self,
        image: VariantImage,
        smoke: Smoke,
        tools: PreparedImage,
        command: tuple[str, ...],
        *,
        terminal: str,
    ) -> int:
        """Run a command in a container, with tools beside the image's files."""
        session = debugging.Session(
            image=image.config_digest,
            tools=shell.tools(self._store, tools, self._images.root(tools)),
            command=command,
            env=(*image.env, *smoke.env),
            labels=((OWNER, owner()), (f"{LABEL}variant", image.tag)),
            terminal=terminal,
        )
        return debugging.run_session(self._daemon, session, self._reaper)

    def cancel(self) -> None:
        """End every build and container, and let nothing new start."""
        self._cancelled.set()

    def _check_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise DaemonError("cancelled")

    def close(self) -> None:
        """Wait for the removal of containers, and close every connection."""
        self._reaper.close()
        self._offline.close()
        self._daemon.client.close()

    # --- images --------------------------------------------------------------------------------

    def _find(self, tag: str) -> DockerImage | None:
        return find_image(self._daemon, tag)

    def _owned(self, tag: str) -> DockerImage | None:
        """Return the image that has a tag; refuse to take it from one that is not ours."""
        found = self._find(tag)
        if found is not None and not any(name.startswith(LABEL) for name in found.labels):
            raise DaemonError(
                f"{tag}: another image has this tag, which nox-variants did not make",
                hint=f"Rename it (docker tag), or remove it: docker rmi {tag}",
            )
        return found

    # --- variants ------------------------------------------------------------------------------

    def _dockerfile(self, plan: Plan, base: PreparedImage) -> str:
        """Return a variant's Dockerfile, and keep it where the user finds it."""
        build = self._prepared[plan.build.image]
        text = dockerfile.render(
            plan,
            self._bringer.base(build),
            self._bringer.base(base),
            epoch=self._epoch,
            buildkit=self._builder.buildkit,
        )
        tag = names.image_tag(plan.variant)
        file = self._output / "dockerfiles" / plan.variant.program / f"{tag}.Dockerfile"
        with self._store.explained():
            file.parent.mkdir(parents=True, exist_ok=True)
            draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
            draft.write_text(text, encoding="utf-8")
            draft.replace(file)
        return text

    def _labels(self, plan: Plan) -> Pairs:
        labels = [
            (f"{LABEL}variant", str(plan.variant.id)),
            ("org.opencontainers.image.title", plan.variant.program),
        ]
        if self._revision:
            labels.append(("org.opencontainers.image.revision", self._revision))
        return tuple(labels)

    def _image(self, made: Made, found: DockerImage, tag: str) -> VariantImage:
        config = found.attrs["Config"]
        layers = tuple(map(Digest, found.attrs["RootFS"].get("Layers") or ()))
        image = VariantImage(
            config_digest=Digest(str(found.id)),
            tag=tag,
            path="",
            layers=layers,
            sizes=self._measurer.sizes(made, found),
            cmd=made.plan.run.cmd,
            entrypoint=made.plan.run.entrypoint,
            env=environment(config),
            workdir=config.get("WorkingDir") or "/",
            user=config.get("User") or "",
        )
        with self._lock:
            self._assembled[image.config_digest] = made
        return image


def _identity(job: builders.Job, *parts: str) -> str:
    """Return the name of everything that goes into a variant's image."""
    value = [job.dockerfile, job.tag, job.labels, job.network, *parts]
    return hashlib.sha256(canonical_json(value)).hexdigest()
