"""The contract of an engine: values in, values out, the same values for every engine.

SDK names and sandbox flags never cross it. Every method may be called from several threads at
once; none prints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from nox_variants.model import Image, Smoke
    from nox_variants.oci.layout import LayerBlob
    from nox_variants.plan import BuildStage, Plan
    from nox_variants.results import (
        Build,
        EngineInfo,
        ImageFacts,
        Observation,
        PreparedImage,
        VariantImage,
    )


class Images(Protocol):
    """Who gives images; see :class:`nox_variants.images.provider.Images`."""

    def prepare(self, image: Image) -> PreparedImage:
        """Return an image whose root is in the store."""

    def unpacked(self, archive: Path, name: str) -> PreparedImage:
        """Return the image of an archive, its root in the store."""

    def root(self, image: PreparedImage) -> Path:
        """Return the folder that holds a prepared image's files."""

    def layers(self, image: PreparedImage) -> list[LayerBlob]:
        """Return a prepared image's layers on their way out."""

    def transfers(self, image: Image, prepared: PreparedImage) -> tuple[int, ...] | None:
        """Return the bytes of each layer as it travels; those that only a daemon has are not there.

        None where a registry would have to tell them, and does not.
        """

    def compressed(self, name: str, layer: LayerBlob) -> int:
        """Return the bytes of a layer under gzip, found out once."""


class Engine(Protocol):
    """Builds and runs plans."""

    def probe(self) -> EngineInfo:
        """Return who this engine is.

        Raises:
            EngineUnavailable: When it cannot work here; the hint says what would change that.
        """
        ...

    def prepare(self, image: Image) -> PreparedImage:
        """Bring an image to this machine, once, also across processes.

        Raises:
            ImageUnavailable: No source of the image can be used here.
            ImageError: A source that should have worked failed.
            StoreError: The disk did not take it.
        """
        ...

    def build(self, stage: BuildStage, image: PreparedImage) -> Build:
        """Compile a stage in its prepared image, or take it from the cache.

        Raises:
            BuildFailed: The program does not compile, or made no artifact.
            VariantsError: Anything else that went wrong; says nothing about the program.
        """
        ...

    def assemble(self, plan: Plan, base: PreparedImage, build: Build) -> VariantImage:
        """Make the variant's image out of its run image and what the build made.

        Its compressed size is worked out where the plan says so, and not otherwise.
        """
        ...

    def resolve(self, plan: Plan, base: PreparedImage, build: Build) -> Plan:
        """Return a plan that copies the libraries of its bundle, too; any other as it is."""
        ...

    def smoke(self, image: VariantImage, smoke: Smoke) -> Observation:
        """Run the image's real command within the limits and report what was seen.

        Raises:
            SandboxError: The run could not be set up; says nothing about the program.
        """
        ...

    def inspect(self, image: VariantImage) -> ImageFacts:
        """Read how the image's command would start and what its root offers; nothing is run."""
        ...

    def debug(
        self,
        image: VariantImage,
        smoke: Smoke,
        tools: PreparedImage,
        command: tuple[str, ...],
        *,
        terminal: str,
    ) -> int:
        """Run a command in the image's root, with tools beside its files, for the user to see.

        What it writes is thrown away.

        Args:
            image: The image.
            smoke: Whose environment it gets; its limits do not hold.
            tools: An image with a static busybox.
            command: A command and its arguments; empty for a shell.
            terminal: The kind of the user's terminal, as TERM has it; empty for none.

        Returns:
            The command's exit code; 128 and the number for a signal.

        Raises:
            VariantsError: It could not be set up; says nothing about the program.
        """
        ...

    def cancel(self) -> None:
        """End everything that runs now, and let nothing new start; callable from any thread."""
        ...

    def close(self) -> None:
        """Let go of connections; the engine is not used again."""
        ...
