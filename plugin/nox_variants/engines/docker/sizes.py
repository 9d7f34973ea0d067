"""How large a daemon's image is, in the figures that every engine gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nox_variants.engines import assembly
from nox_variants.engines.docker.saved import compressed, contents
from nox_variants.results import Sizes

if TYPE_CHECKING:
    import threading

    from docker.models.images import Image as DockerImage

    from nox_variants.engines.bundling import Bundled
    from nox_variants.engines.protocol import Images
    from nox_variants.plan import Plan
    from nox_variants.results import Build, PreparedImage
    from nox_variants.store import Store


@dataclass(frozen=True, slots=True)
class Made:
    """What a variant's image consists of."""

    base: PreparedImage
    build: Build
    plan: Plan
    bundle: tuple[Bundled, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurer:
    """Measures images.

    Attributes:
        store: Where answers are kept.
        images: Knows the layers of bases.
        layers: Makes the layer of a variant's files, as it is on other engines.
        cancelled: Ends what takes long.
    """

    store: Store
    images: Images
    layers: assembly.Assembler
    cancelled: threading.Event

    def sizes(self, made: Made, image: DockerImage) -> Sizes:
        """Return an image's sizes; the compressed one where its plan asks for it."""
        above = self._above(made, image)
        return Sizes(
            binary=made.build.artifacts[0].size,
            content=made.base.content + above,
            above_base=above,
            transfer=self._transfer(made, image) if made.plan.transfer else None,
        )

    def _above(self, made: Made, image: DockerImage) -> int:
        """Return the bytes of regular files in the layers above the base's."""
        if made.plan.run.single_stage or made.plan.run.install:
            return sum(contents(self.store, image)[len(made.base.layers) :])
        sizes = {artifact.path: artifact.size for artifact in made.build.artifacts}
        sizes |= {each.source: each.size for each in made.bundle}
        return sum(sizes[each.source] for each in made.plan.run.files)

    def _transfer(self, made: Made, image: DockerImage) -> int | None:
        """Return the bytes of layers as they travel; None where a registry does not tell them.

        What is copied from the build is gzip of the layer that every engine makes of it. What only
        the daemon has is gzip of the daemon's own layers, with its times and folders in them: with
        a setup, with commands of the run stage and for a single-stage image, the figure is not
        quite that of another engine.
        """
        run = made.plan.run
        below = self.images.transfers(run.image, made.base)
        if below is None:
            return None
        known = made.base.layers[: len(below)]
        if run.single_stage or run.install or len(known) < len(made.base.layers):
            return sum(below) + sum(compressed(self.store, image, known, cancelled=self.cancelled))
        copied = assembly.copies(made.plan, made.build, made.bundle)
        layer = self.layers.files(copied, (self.images.root(made.base),))
        name = str(made.plan.variant.id)
        return sum(below) + self.images.compressed(name, assembly.blob(layer))
