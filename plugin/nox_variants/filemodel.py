"""The form of ``variants.yaml`` and of the catalogue, as pydantic models.

Each field says what it means; the JSON Schema that editors use is generated from here. Names are
checked against what is known (`Known`, the validation context), so that one pass finds every
mistake and where it stands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nox_variants.filevalues import (
    NAMES_SCHEMA,
    AbsolutePath,
    Artifacts,
    Bytes,
    CauseName,
    Command,
    Commands,
    Environment,
    Flags,
    Globs,
    ImageName,
    ImageNames,
    InsidePath,
    Labels,
    LanguageName,
    LibsName,
    LibsNames,
    Link,
    Links,
    Needs,
    NewImageName,
    NewName,
    Packages,
    Pattern,
    ProgramName,
    Repository,
    RequestPath,
    Seconds,
    Text,
    User,
    VerdictName,
    Words,
)
from nox_variants.laterforms import Later
from nox_variants.model import Libs, LinkMode, Verdict

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic_core.core_schema import CoreSchema

    from nox_variants.budgetforms import BudgetForm
    from nox_variants.mirrorforms import MirrorForm


REQUIRED = ("language", "source", "run")
"""Keys that a program needs: its own, or those of the defaults."""


class Form(BaseModel):
    """What all forms have in common: nothing unknown, nothing converted."""

    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)


class ShorthandForm(Form):
    """A mapping that may be written as its one important value."""

    shorthand: ClassVar[str]
    plain: ClassVar[dict[str, Any]] = {"type": "string"}

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, value: Any) -> Any:
        return value if isinstance(value, (dict, type(None))) else {cls.shorthand: value}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [cls.plain, handler.resolve_ref_schema(handler(core))]}


class SelectorForm(Form):
    """Which variants a rule is about; an axis that is left out matches everything."""

    run: Globs | None = Field(None, description="Run images: a name, a list, or globs.")
    link: Globs | None = Field(None, description="Link modes: a name, a list, or globs.")
    build: Globs | None = Field(None, description="Build images: a name, a list, or globs.")


class IncludeForm(Form):
    """One combination more."""

    run: ImageName = Field(description="The run image.")
    link: Link = Field(description="The link mode.")
    build: ImageName | None = Field(
        None, description="The build image; by default the language's for that link mode."
    )
    libs: LibsName = Field(
        Libs.NONE,
        description="`bundle`: the loader and the libraries come along; the id says dynamic+libs.",
    )

    @model_validator(mode="after")
    def _libraries_of_a_dynamic_program(self) -> Self:
        if self.libs == Libs.BUNDLE and self.link != LinkMode.DYNAMIC:
            raise ValueError("libs: bundle is for link: dynamic; a static program has none.")
        return self


class ExpectForm(SelectorForm):
    """What is expected of the variants that the axes select; the last rule that matches counts."""

    verdict: VerdictName = Field(description="`works` or `fails`.")
    cause: CauseName | None = Field(None, description="Why it fails; any cause when left out.")

    @model_validator(mode="after")
    def _cause_of_a_failure(self) -> Self:
        if self.cause and self.verdict == Verdict.WORKS:
            raise ValueError("what works has no cause. Write verdict: fails, or leave cause out.")
        return self


class ServiceForm(Form):
    """How a program that serves HTTP is tried: one request when it listens, then SIGTERM."""

    port: Annotated[int, Field(ge=1, le=65535)] = Field(description="The TCP port it listens on.")
    path: RequestPath = Field("/", description="The request's path.")
    status: Annotated[int, Field(ge=100, le=599)] = Field(
        200, description="The status that counts as success."
    )
    body: Text | None = Field(None, description="The exact body.")
    matches: Pattern | None = Field(
        None, description="A Python regular expression that must be found in the body."
    )
    stop: Seconds = Field(2.0, description="How long it may take to end after SIGTERM.")


class SmokeForm(Form):
    """How variants are smoke-run, and what must come of it."""

    args: list[Text] = Field([], description="Arguments added to the image's command.")
    env: Environment = Field({}, description="Environment added to the image's.")
    stdin: str | None = Field(None, description="Text on standard input.")
    stdout: str | None = Field(None, description="The exact standard output.")
    matches: Pattern | None = Field(
        None, description="A Python regular expression that must be found in standard output."
    )
    exit_code: Annotated[int, Field(ge=0, le=255)] = Field(
        0, description="The exit code that counts as success."
    )
    timeout: Seconds = Field(10.0, description="Wall time after which everything is killed.")
    memory: Bytes = Field(
        512 * 1024 * 1024,
        description="Memory of all its processes, and of what they keep in /tmp, /dev/shm and"
        " memory files.",
    )
    processes: Annotated[int, Field(ge=1, le=10_000)] = Field(
        128, description="Processes and threads."
    )
    output: Bytes = Field(
        1024 * 1024, description="Bytes kept of standard output and of standard error."
    )
    file_size: Bytes = Field(64 * 1024 * 1024, description="Bytes that a file may grow to.")
    service: ServiceForm | None = Field(
        None, description="The program is a server: it is asked once, then told to end."
    )
    needs: Needs = Field(
        [],
        description="What the program asks of its image; the run answers without a network:"
        " certificates (https://fixture.test/), names (name.fixture.test), time-zones, users.",
    )
    repeat: Annotated[int, Field(ge=1, le=100)] = Field(
        1,
        description="How many times the program is run. With more than 1, its start-up time and"
        " its peak memory are shown, as medians; a run that goes wrong is the last, and its"
        " verdict counts.",
    )


class FileForm(Form):
    """A file or folder that the image gets beside the program."""

    source: InsidePath | None = Field(None, description="Its path in the source folder.")
    build: AbsolutePath | None = Field(
        None, description="Its absolute path in the build image, after the build."
    )
    to: AbsolutePath | None = Field(
        None, description="Its absolute path in the image; by default that in the build image."
    )

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.source is None) == (self.build is None):
            raise ValueError("name its path in the source folder (source) or in the image (build).")
        if self.source is not None and self.to is None:
            raise ValueError("say where it goes to: an absolute path in the image (to).")
        return self


if TYPE_CHECKING:
    Budgets = list[BudgetForm]
    Mirrors = dict[str, list[MirrorForm]]
else:
    Budgets = Annotated[Any, Later("nox_variants.budgetforms", "BudgetForm")]
    Mirrors = Annotated[Any, Later("nox_variants.mirrorforms", "MirrorForm", "Mirrors")]


# No builtins: pydantic looks at signatures, and would have to parse the text that a builtin has.
def _no_word() -> str:
    return ""


def _no_words() -> list[str]:
    return []


class ProgramForm(Form):
    """A program: its combinations are the product of `run` and `link` (and `build`)."""

    # REQUIRED, which nothing but the file as a whole can tell.
    language: LanguageName = Field(
        default_factory=_no_word,
        description="The language, of the catalogue or of a file. Required, here or in `defaults`.",
    )
    source: InsidePath = Field(
        default_factory=_no_word,
        description="The source folder, relative to this file; `{program}` stands for the program's"
        " name. Required, here or in `defaults`.",
    )
    run: ImageNames = Field(
        default_factory=_no_words, description="Run images. Required, here or in `defaults`."
    )
    link: Links = Field([LinkMode.DYNAMIC], description="Link modes: dynamic, static, musl.")
    build: ImageNames | None = Field(
        None, description="Build images; by default the language's for each link mode."
    )
    libs: LibsNames = Field(
        [Libs.NONE],
        description="`bundle`: dynamic variants bring the loader and the libraries they need;"
        " [none, bundle] makes both.",
    )
    cmd: Command | None = Field(
        None,
        description="The image's command: a list (exec form) or text (run by /bin/sh, which the"
        " image must have). `{artifact}` is the built file's path in the image, `{program}` the"
        " program's name. By default the language's, which as a rule is the built file itself.",
    )
    entrypoint: Words | None = Field(
        None,
        description="What the image starts, with `cmd` for arguments: a list. `{artifact}` and"
        " `{program}` as in `cmd`.",
    )
    flags: Flags = Field(
        [], description="Arguments added to the compiler's: `-DNDEBUG`, `-lm`, `-ldflags=-s`."
    )
    strip: bool = Field(
        default=False, description="Whether symbols are taken out of what was built."
    )
    build_env: Environment = Field(
        {}, description="Environment of the build's commands, on top of the language's."
    )
    artifacts: Artifacts | None = Field(
        None,
        description="Absolute paths, in the build image, of what the build makes: files or folders,"
        " the program itself first. By default the language's one.",
    )
    files: list[FileForm] = Field(
        [], description="What the image gets beside the program, of the source or the build image."
    )
    env: Environment = Field({}, description="Environment of the image.")
    user: User | None = Field(
        None, description="Who runs the program: a name or a number, or either with `:GROUP`."
    )
    labels: Labels = Field({}, description="Labels of the image.")
    include: list[IncludeForm] = Field([], description="Combinations added to the product.")
    exclude: list[SelectorForm] = Field([], description="Combinations taken out of the product.")
    expect: list[ExpectForm] = Field(
        [], description="What does not work, and why; everything else is expected to work."
    )
    budget: Budgets = Field(
        [],
        description="What variants that work may measure: one budget, or a list of them.",
    )
    smoke: SmokeForm = Field(SmokeForm.model_construct(), description="The smoke run.")
    network: Literal["default", "none"] = Field(
        "default", description="Whether the build may use the network."
    )


class RegistryForm(ShorthandForm):
    """An image of a registry."""

    shorthand = "reference"

    reference: Text = Field(description="`ubuntu:24.04`, `registry.example.com/base@sha256:...`.")
    insecure: bool = Field(
        default=False,
        description="Whether the registry is asked in plain http; daemons have their own word.",
    )
    setup: list[Text] = Field([], description="Shell commands run on top.")


class AptForm(ShorthandForm):
    """A stand-in made from the host's Debian or Ubuntu packages."""

    shorthand = "packages"
    plain = NAMES_SCHEMA

    packages: Packages | None = Field(
        None, description="Packages; what they depend on comes along."
    )
    setup: list[Text] = Field(
        [], description="Shell commands run on top: no maintainer script runs."
    )
    unavailable: str | None = Field(
        None, description="Why packages can never give this image; in place of packages."
    )

    @model_validator(mode="after")
    def _packages_or_reason(self) -> Self:
        if (self.packages is None) == (self.unavailable is None):
            raise ValueError("name packages, or say why they are unavailable.")
        return self


class ArchiveForm(ShorthandForm):
    """An image of a file."""

    shorthand = "path"

    path: InsidePath = Field(description="A root filesystem or OCI archive, relative to this file.")
    setup: list[Text] = Field([], description="Shell commands run on top.")


class ImageForm(Form):
    """An image: the first source that can be had is used, registry before apt before archive.

    Of an image that the catalogue has too, each key replaces the catalogue's; null removes it.
    """

    registry: RegistryForm | None = Field(
        None, description="A registry reference, or a mapping with its own setup."
    )
    apt: AptForm | None = Field(
        None, description="Packages of a stand-in, or a mapping with its own setup."
    )
    archive: ArchiveForm | None = Field(
        None, description="An archive's path, or a mapping with its own setup."
    )
    setup: list[Text] = Field(
        [], description="Shell commands run on top of any source, after its own."
    )
    env: Environment = Field(
        {}, description="Environment of the image, where its source does not carry one."
    )
    user: User | None = Field(
        None, description="Who runs what it starts, where its source does not say so."
    )


class RecipeForm(Form):
    """How a language builds for one link mode."""

    build: ImageName = Field(description="The default build image.")
    commands: Commands = Field(
        description="Shell commands, run in the source folder; `{program}` stands for the"
        " program's name, `{flags}` for its extra flags."
    )
    env: Environment = Field({}, description="Environment of the commands.")
    install: Commands | None = Field(
        None,
        description="Shell commands run in the run image, where the artifact has been copied to;"
        " what they change is part of the image. `{artifact}` is its path there.",
    )


class LanguageForm(Form):
    """A language: data, not code.

    Of a language that the catalogue has too, each key replaces the catalogue's; link modes are
    added to the catalogue's.
    """

    artifact: AbsolutePath | None = Field(
        None,
        description="Absolute path of what is built, a file or a folder, in the build image;"
        " `{program}` stands for the program's name. Required, but where the catalogue has it.",
    )
    cmd: Words | None = Field(
        None,
        description="What starts the artifact, where it does not start itself: a list."
        " `{artifact}` is its path in the image, `{program}` the program's name.",
    )
    strip: Text = Field("", description="Shell command that takes the symbols out of `{artifact}`.")
    link: dict[Link, RecipeForm] = Field({}, description="How it builds, by link mode.")
    caches: list[AbsolutePath] = Field(
        [], description="Absolute paths in the build image that are kept between builds."
    )
    static_by_nature: bool = Field(
        default=False, description="Whether a dynamic build may rightly come out static."
    )
    mismatch_hint: str = Field("", description="What to do when a build is not linked as asked.")
    only_dynamic: str = Field("", description="Why it has no other link mode, as a sentence.")


class CacheForm(ShorthandForm):
    """A registry's repository that keeps layers of builds, between machines; for buildx."""

    shorthand = "registry"

    registry: Repository = Field(
        description="The repository, `registry.example.com/team/cache`: each build has its own tag"
        " there."
    )
    mode: Literal["max", "min"] = Field(
        "max", description="`max`: the layers of every stage; `min`: those of what comes out."
    )
    write: bool = Field(default=True, description="Whether builds leave layers there, too.")


def _requires(key: str) -> dict[str, Any]:
    """Return the JSON Schema rule that all programs have a key where the defaults lack it."""
    given = {"properties": {"defaults": {"required": [key]}}, "required": ["defaults"]}
    each = {"properties": {"programs": {"additionalProperties": {"required": [key]}}}}
    return {"anyOf": [given, each]}


class File(Form):
    """Programs, and the images they are built in and run on."""

    model_config = ConfigDict(json_schema_extra={"allOf": [_requires(key) for key in REQUIRED]})

    version: Literal[1] = Field(description="The version of this form.")
    defaults: ProgramForm | None = Field(
        None,
        description="What the programs of this file say unless they say it themselves; keys of"
        " `smoke`, `env`, `build_env` and `labels` add up.",
    )
    programs: dict[ProgramName, ProgramForm] = Field(
        {},
        min_length=1,
        description="Programs by name: OCI repository names. One file of several may have none.",
    )
    images: dict[NewImageName, ImageForm] = Field(
        {}, description="Images that the catalogue lacks, or in place of its own."
    )
    languages: dict[NewName, LanguageForm] = Field(
        {}, description="Languages that the catalogue lacks, or in place of its own."
    )
    cache: CacheForm | None = Field(
        None,
        description="Where builds with buildx find layers of other machines, and leave theirs: a"
        " repository, or a mapping.",
    )
    mirrors: Mirrors = Field(
        {},
        description="What is asked for images before their own registries: a mirror for all of"
        " them, or a mapping by registry, with `*` for every other. Of several the first that has"
        " the image gives it.",
    )
