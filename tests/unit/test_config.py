"""Every class of mistake has its exact words and its place; a right file becomes settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from nox_variants import config, matrix
from nox_variants.errors import ConfigError
from nox_variants.model import (
    Cause,
    CopiedFile,
    Libs,
    LinkMode,
    Need,
    Options,
    Service,
    SourceKind,
    Verdict,
)

GOOD = """\
version: 1
programs:
  hello-c:
    language: c
    source: examples/hello-c
    run: [ubuntu, alpine, scratch]
    link: [dynamic, static]
    include:
      - {run: alpine, link: dynamic, build: alpine-gcc}
    exclude:
      - {run: ubuntu, link: static}
    expect:
      - {run: [alpine, scratch], link: dynamic, build: gcc, verdict: fails, cause: missing-loader}
    smoke: {stdout: "Hello, world!\\n", timeout: 5s, memory: 64MB}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the current folder, as a user has it."""
    monkeypatch.chdir(tmp_path)
    file = Path("variants.yaml")
    file.write_text(GOOD, encoding="utf-8")
    return file


def problems(file: Path, text: str | bytes) -> tuple[str, ...]:
    """Return what is said about a text."""
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        config.load(file)
    return caught.value.problems


def change(old: str, new: str) -> str:
    """Return the good file with one change."""
    assert GOOD.count(old) >= 1, old
    return GOOD.replace(old, new, 1)


def test_good_file_becomes_settings(file: Path) -> None:
    """All that a file says arrives in the values, with the catalogue's language and images."""
    settings = config.load(file)

    (program,) = settings.programs
    assert (program.name, program.language.name) == ("hello-c", "c")
    assert program.source == Path.cwd() / "examples" / "hello-c"
    assert program.run == ("ubuntu", "alpine", "scratch")
    assert program.link == (LinkMode.DYNAMIC, LinkMode.STATIC)
    assert program.include[0].build == "alpine-gcc"
    assert program.exclude[0].run == ("ubuntu",)
    assert program.expect[0].verdict is Verdict.FAILS
    assert program.expect[0].cause is Cause.MISSING_LOADER
    assert str(program.expect[0].selector.location) == "variants.yaml:13:9"
    assert (program.smoke.stdout, program.smoke.timeout) == ("Hello, world!\n", 5.0)
    assert program.smoke.memory == 64_000_000
    assert {"gcc", "alpine-gcc", "scratch"} <= {image.name for image in settings.images}
    assert settings.root == Path.cwd()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "alpine, scratch]\n    link",
            "alpin, scratch]\n    link",
            "6:19: programs.hello-c.run[1]: unknown image 'alpin'. Did you mean 'alpine'?",
        ),
        (
            "language: c\n",
            "language: cc\n",
            "4:15: programs.hello-c.language: unknown language 'cc'. Did you mean 'c'?",
        ),
        (
            "[dynamic, static]",
            "[dynamic, statik]",
            "7:21: programs.hello-c.link[1]: unknown link mode 'statik'. Did you mean 'static'?",
        ),
        (
            "[dynamic, static]",
            "[dynamic, xyz]",
            (
                "7:21: programs.hello-c.link[1]: unknown link mode 'xyz'."
                " Known are dynamic, musl, static."
            ),
        ),
        (
            "verdict: fails",
            "verdict: failed",
            (
                "13:70: programs.hello-c.expect[0].verdict: unknown verdict 'failed'."
                " Did you mean 'fails'?"
            ),
        ),
        (
            "cause: missing-loader",
            "cause: no-loader",
            (
                "13:84: programs.hello-c.expect[0].cause: unknown cause 'no-loader'."
                " Did you mean 'missing-loader'?"
            ),
        ),
        (
            "verdict: fails",
            "verdict: works",
            (
                "13:9: programs.hello-c.expect[0]: what works has no cause."
                " Write verdict: fails, or leave cause out."
            ),
        ),
        (
            "    smoke:",
            "    smok:",
            "14:5: programs.hello-c.smok: unknown key 'smok'. Did you mean 'smoke'?",
        ),
        (
            "timeout: 5s",
            "tiemout: 5s",
            "14:40: programs.hello-c.smoke.tiemout: unknown key 'tiemout'. Did you mean 'timeout'?",
        ),
        (
            "version: 1\n",
            "version: 1\nxyzzy: 2\n",
            (
                "2:1: xyzzy: unknown key 'xyzzy'. Known are version, defaults, programs, images,"
                " languages, cache, mirrors."
            ),
        ),
        (
            "    language: c\n",
            "",
            "4:5: programs.hello-c: key 'language' is missing.",
        ),
        (
            "version: 1\n",
            "version: 2\n",
            "1:10: version: must be 1, not 2.",
        ),
        (
            "version: 1\n",
            "",
            "1:1: key 'version' is missing.",
        ),
        (
            "run: [ubuntu, alpine, scratch]",
            "run: []",
            "6:10: programs.hello-c.run: must not be empty.",
        ),
        (
            "run: [ubuntu, alpine, scratch]",
            "run: [ubuntu, ubuntu, alpine, scratch]",
            "6:10: programs.hello-c.run: 'ubuntu' is there twice.",
        ),
        (
            "run: [ubuntu, alpine, scratch]",
            "run: {ubuntu: 1}",
            "6:10: programs.hello-c.run: must be a list, not a mapping.",
        ),
        (
            'stdout: "Hello, world!\\n"',
            "stdout: 5",
            '14:21: programs.hello-c.smoke.stdout: must be text, not a number. Quote it: "5".',
        ),
        (
            "smoke: {",
            "smoke: {args: x, ",
            "14:19: programs.hello-c.smoke.args: must be a list, not text.",
        ),
        (
            "smoke: {",
            "smoke: {exit_code: 300, ",
            "14:24: programs.hello-c.smoke.exit_code: must be at most 255, not 300.",
        ),
        (
            "smoke: {",
            "smoke: {processes: 0, ",
            "14:24: programs.hello-c.smoke.processes: must be at least 1, not 0.",
        ),
        (
            "smoke: {",
            "smoke: {exit_code: 1.5, ",
            "14:24: programs.hello-c.smoke.exit_code: must be a whole number, not a number.",
        ),
        (
            "smoke: {",
            "smoke: {stdin: [a], ",
            "14:20: programs.hello-c.smoke.stdin: must be text, not a list.",
        ),
        (
            "smoke: {",
            "smoke: {matches: '(', ",
            (
                "14:22: programs.hello-c.smoke.matches: '(' is no regular expression:"
                " missing ), unterminated subpattern at position 0."
            ),
        ),
        (
            "smoke: {",
            "smoke: {env: {A=B: x}, ",
            (
                "14:19: programs.hello-c.smoke.env['A=B']: 'A=B' is no name of an environment"
                " variable."
            ),
        ),
        (
            "smoke: {",
            'smoke: {env: {A: "\\0"}, ',
            "14:22: programs.hello-c.smoke.env.A: a null character cannot be passed to a program.",
        ),
        (
            "timeout: 5s",
            "timeout: 5 parsecs",
            (
                "14:49: programs.hello-c.smoke.timeout: '5 parsecs' is no time between 0 and 24 hours."
                " Write 5s, 500ms or 2m."
            ),
        ),
        (
            "timeout: 5s",
            "timeout: 0",
            (
                "14:49: programs.hello-c.smoke.timeout: 0 is no time between 0 and 24 hours."
                " Write 5s, 500ms or 2m."
            ),
        ),
        (
            "memory: 64MB",
            "memory: lots",
            (
                "14:61: programs.hello-c.smoke.memory: 'lots' is no size."
                " Write 64MB, 512KiB or a number of bytes."
            ),
        ),
        (
            "source: examples/hello-c",
            "source: ../elsewhere",
            (
                "5:13: programs.hello-c.source: '../elsewhere' leads out of the folder of this file."
                " Write a path below it; to use sources from elsewhere, put the file above them."
            ),
        ),
        (
            "source: examples/hello-c",
            "source: /etc",
            (
                "5:13: programs.hello-c.source: '/etc' leads out of the folder of this file."
                " Write a path below it; to use sources from elsewhere, put the file above them."
            ),
        ),
        (
            "  hello-c:",
            "  Hello:",
            (
                "3:3: programs.Hello: 'Hello' cannot be a program's name. It becomes the image's:"
                " lower-case letters and digits, with single dots, underscores or dashes between,"
                " at most 100 characters."
            ),
        ),
        (
            "  hello-c:",
            "  matrix:",
            (
                "3:3: programs.matrix: 'matrix' is reserved: it is the session that runs every"
                " variant."
            ),
        ),
        (
            "run: ubuntu, link: static",
            "run: fedora, link: static",
            (
                "11:9: programs.hello-c.exclude[0]: run 'fedora' matches none of ubuntu, alpine,"
                " scratch."
            ),
        ),
        (
            "run: ubuntu, link: static",
            "run: ubuntuu, link: static",
            (
                "11:9: programs.hello-c.exclude[0]: run 'ubuntuu' matches none of ubuntu, alpine,"
                " scratch. Did you mean 'ubuntu'?"
            ),
        ),
        (
            "link: dynamic, build: gcc",
            "link: static, build: alpine-gcc",
            "13:9: programs.hello-c.expect[0]: matches no variant. Correct it or leave it out.",
        ),
        (
            "run: alpine, link: dynamic, build: alpine-gcc",
            "run: alpine, link: dynamic",
            (
                "9:9: programs.hello-c.include[0]: hello-c(alpine,dynamic) is there already."
                " Leave it out."
            ),
        ),
        (
            "- {run: ubuntu, link: static}",
            '- {run: "*"}',
            "3:3: programs.hello-c: has no variant left.",
        ),
        (
            "[dynamic, static]",
            "[dynamic, static]\n    libs: bundled",
            "8:11: programs.hello-c.libs: unknown value of libs 'bundled'. Did you mean 'bundle'?",
        ),
        (
            "build: alpine-gcc}",
            "build: alpine-gcc, libs: bundle}\n      - {run: scratch, link: static, libs: bundle}",
            (
                "10:9: programs.hello-c.include[1]: libs: bundle is for link: dynamic; a static"
                " program has none."
            ),
        ),
        (
            "[dynamic, static]",
            "[dynamic, static]\n    cmd: []",
            (
                "8:10: programs.hello-c.cmd: an image has to start something. Leave cmd out to start"
                " what is built."
            ),
        ),
        (
            "[dynamic, static]",
            "[dynamic, static]\n    cmd: [hello, 7]",
            (
                "8:10: programs.hello-c.cmd: ['hello', 7] is no command. Write a list of words, or"
                " text for /bin/sh."
            ),
        ),
        (
            "[dynamic, static]",
            "[dynamic, static]\n    cmd: '{artefact} -v ${HOME}'",
            (
                "8:10: programs.hello-c.cmd: {artefact} stands for nothing. Known are {artifact} and"
                " {program}."
            ),
        ),
        (
            "timeout: 5s",
            "needs: [network]",
            (
                "14:48: programs.hello-c.smoke.needs[0]: unknown need 'network'. Known are"
                " certificates, names, time-zones, users."
            ),
        ),
        (
            "timeout: 5s",
            "service: {port: 53}, needs: [names]",
            (
                "14:56: programs.hello-c.smoke.service.port: 53 is taken by what answers 'names' in a"
                " smoke run. Use another."
            ),
        ),
        (
            "timeout: 5s",
            "repeat: 101",
            "14:48: programs.hello-c.smoke.repeat: must be at most 100, not 101.",
        ),
        (
            "timeout: 5s",
            "repeat: 0",
            "14:48: programs.hello-c.smoke.repeat: must be at least 1, not 0.",
        ),
        (
            "timeout: 5s",
            "service: {port: 0, path: x}",
            "14:56: programs.hello-c.smoke.service.port: must be at least 1, not 0.",
        ),
        (
            "timeout: 5s",
            "service: {port: 80, path: x y}",
            (
                "14:66: programs.hello-c.smoke.service.path: 'x y' is no path of a request. Begin it"
                " with '/', escape the rest."
            ),
        ),
        (
            "language: c\n",
            "language: go\n",
            (
                "7:11: programs.hello-c.link: language 'go' has no link mode 'musl'."
                " It has dynamic, static."
            ),
        ),
    ],
)
def test_mistakes(file: Path, old: str, new: str, said: str) -> None:
    """A mistake is named with file, line, column, path, reason and what to do."""
    text = change(old, new)
    if "language 'go'" in said:
        text = text.replace("link: [dynamic, static]", "link: musl")
    if "has no variant left" in said:
        text = text[: text.index("    include:")] + '    exclude: [{run: "*"}]\n'

    assert f"variants.yaml:{said}" in _all(file, text)


def _all(file: Path, text: str) -> tuple[str, ...]:
    """Return the problems of the file, whether reading or expanding finds them."""
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        matrix.expand(config.load(file))
    return caught.value.problems


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "1:1: is empty. `nox-variants init` writes a first one."),
        ("a: b: c\n", "1:5: is not valid YAML: mapping values are not allowed in this context."),
        (
            "a: *glob\n",
            (
                "1:4: is not valid YAML: found undefined alias. A word that starts with '*' is an"
                ' alias in YAML: quote a glob, as in "*musl".'
            ),
        ),
        (
            "a: [*]\n",
            (
                "1:6: is not valid YAML: did not find expected alphabetic or numeric character. A word"
                " that starts with '*' is an alias in YAML: quote a glob, as in \"*musl\"."
            ),
        ),
        (
            "a:\n\tb: 1\n",
            (
                "2:1: is not valid YAML: found character that cannot start any token. Indent with"
                " spaces, not with tabs, and quote what starts with @ or `."
            ),
        ),
        ("a: 1\n---\nb: 2\n", "2:1: holds more than one document. Remove what follows '---'."),
        (b"a: \xff\n", "1:1: is not UTF-8 text."),
        ("- a\n", "1:1: must be a mapping, not a list."),
        ("version: 1\nprograms: {}\n", "2:11: programs: must not be empty."),
        ("version: 1\nprograms: {a: x}\n", "2:15: programs.a: must be a mapping, not text."),
        ("version: 1\n", "1:1: key 'programs' is missing."),
        ("version: 1\nprograms:\n", "2:10: programs: must be a mapping, not nothing."),
    ],
)
def test_files_that_are_no_variants(file: Path, text: str | bytes, said: str) -> None:
    """A file that cannot be read as YAML, or is something else, is said to be so."""
    assert f"variants.yaml:{said}" in problems(file, text)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "run: [ubuntu, alpine, scratch]",
            "run: [no]",
            (
                "6:11: programs.hello-c.run[0]: YAML reads no as a boolean."
                ' Quote it if the text "no" is meant.'
            ),
        ),
        (
            "timeout: 5s",
            "timeout: 1:30",
            (
                "14:49: programs.hello-c.smoke.timeout: YAML reads 1:30 as a number."
                ' Quote it if the text "1:30" is meant.'
            ),
        ),
        *(
            (
                "timeout: 5s",
                f"timeout: {text}",
                (
                    f"14:49: programs.hello-c.smoke.timeout: YAML reads {said} as a number."
                    f' Quote it if the text "{said}" is meant.'
                ),
            )
            for text, said in (
                ("1_", "1_"),
                ("1__0", "1__0"),
                ("9" * 5000, "9" * 5000),  # Python reads at most 4300 digits
                ("!!float '[b'", "[b"),
            )
        ),
        (
            "  hello-c:",
            "  yes:",
            '3:3: programs.yes: YAML reads yes as a boolean. Quote it if the name "yes" is meant.',
        ),
        (
            "    language: c\n",
            "    language: c\n    language: c\n",
            "5:5: programs.hello-c.language: key 'language' is there twice, first in line 4.",
        ),
        (
            "    language: c\n",
            "    <<: {language: c}\n",
            "4:5: programs.hello-c: has a merge key '<<', which is not supported.",
        ),
        (
            "language: c\n",
            "language: !!binary aGk=\n",
            "4:15: programs.hello-c.language: has the unknown YAML tag 'tag:yaml.org,2002:binary'.",
        ),
        (
            "source: examples/hello-c",
            "source: 2020-01-01",
            (
                "5:13: programs.hello-c.source: YAML reads 2020-01-01 as a date."
                ' Quote it if the text "2020-01-01" is meant.'
            ),
        ),
        (
            "    smoke:",
            "    ? [a]\n    : b\n    smoke:",
            "14:7: programs.hello-c: has a key that is no name.",
        ),
        (
            "    smoke:",
            "    ~: b\n    smoke:",
            "14:5: programs.hello-c['~']: YAML reads ~ as nothing.",
        ),
    ],
)
def test_traps_of_yaml(file: Path, old: str, new: str, said: str) -> None:
    """What YAML would quietly turn into something else is refused with a hint."""
    assert f"variants.yaml:{said}" in problems(file, change(old, new))


def test_missing_file_says_how_to_make_one(file: Path) -> None:
    """No file is one sentence with the command that writes one."""
    file.unlink()

    with pytest.raises(ConfigError) as caught:
        config.load(file)

    assert caught.value.problems == (
        "variants.yaml:1:1: no such file. `nox-variants init` writes a first one.",
    )


def test_folder_in_place_of_the_file(file: Path) -> None:
    """A folder of that name is said to be one."""
    file.unlink()
    file.mkdir()

    with pytest.raises(ConfigError) as caught:
        config.load(file)

    assert caught.value.problems == ("variants.yaml:1:1: cannot be read: Is a directory.",)


def test_huge_files_are_refused(file: Path) -> None:
    """A file is not read without end."""
    assert problems(file, b"#" * (5 << 20)) == ("variants.yaml:1:1: is larger than 4 MiB.",)


def test_nested_aliases_are_not_unfolded(file: Path) -> None:
    """A file whose aliases multiply is refused quickly."""
    text = "a: &a [x,x,x,x,x,x,x,x,x]\n"
    for one, other in zip("abcdefghi", "bcdefghij", strict=True):
        text += f"{other}: &{other} [{','.join([f'*{one}'] * 9)}]\n"

    assert any("is nested or aliased too deeply." in said for said in problems(file, text))


def test_deep_nesting_is_refused(file: Path) -> None:
    """A file that is nested a hundred thousand deep is one sentence."""
    (said,) = problems(file, "a: " + "[" * 100_000 + "]" * 100_000)

    assert "nested" in said or "valid YAML" in said


def test_every_mistake_is_said_at_once(file: Path) -> None:
    """Mistakes of several programs and kinds are all there, in the order of their lines."""
    text = change("alpine, scratch]\n    link", "alpin, scratch]\n    link")
    text = text.replace("timeout: 5s", "timeout: no")
    text += """\
  second:
    language: c
    source: b
    run: scratch
    exclude: [{run: alpine}]
  third:
    language: go
    source: c
    run: scratch
    link: musl
images:
  mine: {}
"""

    lines = [said.split(": ", 1)[0] for said in problems(file, text)]

    assert lines == [
        "variants.yaml:6:19",  # alpin
        "variants.yaml:14:49",  # no: a boolean, and no time
        "variants.yaml:14:49",
        "variants.yaml:19:15",  # second's rule
        "variants.yaml:24:11",  # third's link mode
        "variants.yaml:26:9",  # mine has no source
    ]


IMAGES = """\
images:
  ubuntu: {registry: "ubuntu:26.04"}
  mine: {apt: {packages: [bash], setup: [echo a]}, setup: [echo b], env: {A: b}}
  file: {archive: base.tar}
  busybox: {registry: null}
"""


def test_images_of_the_file_extend_the_catalogue(file: Path) -> None:
    """A key replaces the catalogue's, null removes it, and a new name is a new image."""
    file.write_text(GOOD + IMAGES, encoding="utf-8")

    images = {image.name: image for image in config.load(file).images}

    assert [source.kind for source in images["ubuntu"].sources] == [
        SourceKind.REGISTRY,
        SourceKind.APT,
    ]
    assert images["ubuntu"].sources[0].reference == "ubuntu:26.04"
    assert images["mine"].sources[0].packages == ("bash",)
    assert images["mine"].sources[0].setup == ("echo a", "echo b")
    assert images["mine"].env == (("A", "b"),)
    assert images["file"].sources[0].reference == "base.tar"
    assert [source.kind for source in images["busybox"].sources] == [SourceKind.APT]
    assert images["scratch"].sources[0].kind is SourceKind.SCRATCH


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "images:\n  scratch: {apt: bash}\n",
            "16:3: images.scratch: 'scratch' is built in: it is the empty image.",
        ),
        (
            "images:\n  'a b': {apt: bash}\n",
            (
                "16:3: images['a b']: 'a b' cannot be a name. Use letters, digits and . _ / : + @ -,"
                " at most 100 characters."
            ),
        ),
        ("images:\n  ubuntu: x\n", "16:11: images.ubuntu: must be a mapping, not text."),
        ("images:\n  a: {}\n", "16:6: images.a: has no source. Give it registry, apt or archive."),
        (
            "images:\n  a: {apt: --allow-unauthenticated}\n",
            (
                "16:12: images.a.apt: '--allow-unauthenticated' is no package."
                " Write NAME, NAME:ARCHITECTURE or NAME=VERSION."
            ),
        ),
        (
            "images:\n  a: {apt: {}}\n",
            "16:12: images.a.apt: name packages, or say why they are unavailable.",
        ),
        (
            "images:\n  a: {archive: ../a.tar}\n",
            (
                "16:16: images.a.archive: '../a.tar' leads out of the folder of this file. Write a"
                " path below it; to use sources from elsewhere, put the file above them."
            ),
        ),
        (
            "images:\n  a: {registy: b}\n",
            "16:7: images.a.registy: unknown key 'registy'. Did you mean 'registry'?",
        ),
        (
            "languages:\n  zig: {link: {}}\n",
            "16:8: languages.zig: key 'artifact' is missing.",
        ),
        (
            "languages:\n  zig: {artifact: /out}\n",
            "16:8: languages.zig: key 'link' is missing.",
        ),
        (
            "languages:\n  zig: {artifact: out/x, link: {static: {build: gcc, commands: zig}}}\n",
            (
                "16:19: languages.zig.artifact: 'out/x' is no absolute path. Write it from the root of"
                " the image, without '..': the folder in which commands run differs from image to"
                " image."
            ),
        ),
        (
            "languages:\n  zig: {artifact: /x, link: {statik: {build: gcc, commands: zig}}}\n",
            "16:30: languages.zig.link.statik: unknown link mode 'statik'. Did you mean 'static'?",
        ),
        (
            "languages:\n  zig: {artifact: /x, link: {static: {build: zik, commands: zig}}}\n",
            "16:46: languages.zig.link.static.build: unknown image 'zik'.",
        ),
        (
            "languages:\n  zig: {artifact: /x, link: {static: {bild: gcc, commands: zig}}}\n",
            "16:39: languages.zig.link.static.bild: unknown key 'bild'. Did you mean 'build'?",
        ),
    ],
)
def test_mistakes_in_images_and_languages(file: Path, text: str, said: str) -> None:
    """Images and languages of the file are checked like programs."""
    assert any(
        problem.startswith(f"variants.yaml:{said}") for problem in problems(file, GOOD + text)
    )


def test_language_of_ones_own(file: Path) -> None:
    """A language is data: a new one, and more link modes and keys for one of the catalogue."""
    text = """\
languages:
  shell:
    artifact: /out/{program}
    link: {dynamic: {build: debian, commands: "cp *.sh /out/{program}"}}
  go:
    caches: [/cache]
    link: {musl: {build: golang, commands: go build}}
"""
    text = change("language: c\n", "language: shell\n") + text
    text = text.replace("link: [dynamic, static]", "link: dynamic")
    text = text.replace("    exclude:\n      - {run: ubuntu, link: static}\n", "")

    file.write_text(text.replace("build: gcc,", "build: debian,"), encoding="utf-8")
    settings = config.load(file)

    (program,) = settings.programs
    assert program.language.name == "shell"
    assert program.language.recipes[0].commands == ("cp *.sh /out/{program}",)


def test_service_needs_and_command(file: Path) -> None:
    """A server, what the program asks of its image, and its command reach the program."""
    text = change("timeout: 5s", "service: {port: 80, stop: 1s}, needs: [names, users], repeat: 5")
    text = text.replace(
        "[dynamic, static]", "[dynamic, static]\n    cmd: [a, b]\n    libs: [none, bundle]"
    )
    file.write_text(text, encoding="utf-8")

    (program,) = config.load(file).programs

    assert program.smoke.service == Service(port=80, stop=1.0)
    assert program.smoke.needs == (Need.NAMES, Need.USERS)
    assert program.smoke.repeat == 5
    assert program.cmd == ("a", "b")
    assert program.libs == (Libs.NONE, Libs.BUNDLE)


OPTIONS = """\
version: 1
programs:
  hello:
    language: c
    source: hello
    run: [ubuntu, scratch]
"""

PLAIN = "languages: {plain: {artifact: /a, link: {dynamic: {build: gcc, commands: cp}}}}"

OPEN_FILE = "name its path in the source folder (source) or in the image (build)."


@pytest.mark.parametrize(
    ("language", "option", "said"),
    [
        ("c", "files: [{to: /etc/a}]", f"13: programs.hello.files[0]: {OPEN_FILE}"),
        (
            "c",
            "files: [{source: a, build: /a, to: /etc/a}]",
            f"13: programs.hello.files[0]: {OPEN_FILE}",
        ),
        (
            "c",
            "files: [{source: a}]",
            (
                "13: programs.hello.files[0]: say where it goes to: an absolute path in the image"
                " (to)."
            ),
        ),
        (
            "c",
            "files: [{source: ../a, to: /a}]",
            (
                "22: programs.hello.files[0].source: '../a' leads out of the folder of this file."
                " Write a path below it; to use sources from elsewhere, put the file above them."
            ),
        ),
        (
            "c",
            "files: [{build: /etc/a}, {source: b, to: /etc/a}]",
            "30: programs.hello.files[1]: /etc/a is the place of /etc/a.",
        ),
        (
            "c",
            "files: [{source: b, to: /hello}]",
            "13: programs.hello.files[0]: /hello is the place of /out/hello.",
        ),
        (
            "c",
            "artifacts: [/out/hello, /out/lib, /usr/lib]",
            "39: programs.hello.artifacts[2]: its place in the image, /lib, is another's.",
        ),
        (
            "plain",
            "flags: -v",
            (
                "12: programs.hello.flags: language 'plain' takes none: its commands have no {flags}."
            ),
        ),
        (
            "python",
            "strip: true",
            "12: programs.hello.strip: language 'python' has nothing to strip. Leave it out.",
        ),
        (
            "python",
            "libs: bundle",
            ("11: programs.hello.libs: language 'python' has no libraries to bring: python3 does."),
        ),
        (
            "java",
            "include: [{run: scratch, link: dynamic, libs: bundle}]",
            (
                "51: programs.hello.include[0].libs: language 'java' has no libraries to bring:"
                " java does."
            ),
        ),
        (
            "java",
            "link: [dynamic, static]",
            (
                "21: programs.hello.link[1]: language 'java' has no link mode 'static'. The run"
                " image's Java runs it, so there is nothing to link."
            ),
        ),
        (
            "c",
            'user: "a b"',
            ("11: programs.hello.user: 'a b' is no user. Write NAME, UID, NAME:GROUP or UID:GID."),
        ),
        (
            "c",
            "user: 1000",
            '11: programs.hello.user: must be text, not a number. Quote it: "1000".',
        ),
        (
            "c",
            "labels: {A: b}",
            (
                "14: programs.hello.labels.A: 'A' is no key of a label. Use lower-case letters and"
                " digits, with single dots and dashes between."
            ),
        ),
        (
            "c",
            "build_env: {A-B: c}",
            "17: programs.hello.build_env.A-B: 'A-B' is no name of an environment variable.",
        ),
        (
            "c",
            "entrypoint: hello",
            "17: programs.hello.entrypoint: must be a list, not text.",
        ),
        (
            "c",
            'entrypoint: ["{source}"]',
            (
                "17: programs.hello.entrypoint: {source} stands for nothing. Known are {artifact}"
                " and {program}."
            ),
        ),
    ],
)
def test_mistakes_in_build_options(file: Path, language: str, option: str, said: str) -> None:
    """What a language or an image cannot do is refused before anything is built."""
    text = OPTIONS.replace("language: c", f"language: {language}") + f"    {option}\n{PLAIN}\n"

    assert problems(file, text) == (f"variants.yaml:7:{said}",)


def test_build_options(file: Path) -> None:
    """Every option reaches the program as a value."""
    options = """\
    flags: [-DNDEBUG, -lm]
    strip: true
    build_env: {LC_ALL: C}
    artifacts: [/out/hello, /out/share]
    files: [{source: a.conf, to: /etc/a}, {build: /etc/ssl}, {build: /etc/b, to: /c}]
    env: {A: b}
    user: "1000:1000"
    labels: {org.example.name: hello}
    entrypoint: ["{artifact}", -v]
"""
    file.write_text(OPTIONS + options, encoding="utf-8")

    (program,) = config.load(file).programs

    assert program.options == Options(
        flags=("-DNDEBUG", "-lm"),
        strip=True,
        build_env=(("LC_ALL", "C"),),
        artifacts=("/out/hello", "/out/share"),
        files=(
            CopiedFile("a.conf", "/etc/a"),
            CopiedFile("/etc/ssl", "/etc/ssl"),
            CopiedFile("/etc/b", "/c"),
        ),
        env=(("A", "b"),),
        user="1000:1000",
        labels=(("org.example.name", "hello"),),
        entrypoint=("{artifact}", "-v"),
    )


def test_go_with_a_link_mode_more(file: Path) -> None:
    """The catalogue's link modes stay when the file adds one; its keys are replaced."""
    text = change("language: c\n", "language: go\n")
    text += (
        "languages:\n  go:\n    caches: [/cache]\n"
        "    link: {musl: {build: golang, commands: go build}}\n"
    )
    file.write_text(text.replace("build: gcc,", "build: golang,"), encoding="utf-8")

    (program,) = config.load(file).programs

    assert [recipe.link for recipe in program.language.recipes] == ["dynamic", "static", "musl"]
    assert program.language.caches == ("/cache",)
    assert program.language.static_by_nature


@pytest.mark.parametrize(
    ("text", "seconds"), [("5s", 5.0), ("500ms", 0.5), ("2m", 120.0), ("0.5h", 1800.0), ("7", 7.0)]
)
def test_times(file: Path, text: str, seconds: float) -> None:
    """Times have units; a bare number is seconds."""
    file.write_text(change("timeout: 5s", f"timeout: {text}"), encoding="utf-8")

    assert config.load(file).programs[0].smoke.timeout == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64MB", 64_000_000),
        ("1GiB", 2**30),
        ("512 kB", 512_000),
        ("512KiB", 512 * 1024),
        ("100", 100),
        ("1.5k", 1500),
    ],
)
def test_sizes(file: Path, text: str, size: int) -> None:
    """Sizes have units; a bare number is bytes."""
    file.write_text(change("memory: 64MB", f"memory: {text}"), encoding="utf-8")

    assert config.load(file).programs[0].smoke.memory == size


def test_catalogue_is_complete() -> None:
    """Every language builds in images of the catalogue; every image has both kinds of source."""
    shipped = config.catalogue()

    builds = {
        recipe["build"]
        for language in shipped["languages"].values()
        for recipe in language["link"].values()
    }
    assert builds <= set(shipped["images"])
    assert {"c", "c++", "go", "rust"} <= set(shipped["languages"])
    assert {
        *("gcc", "alpine-gcc", "golang", "rust", "debian", "ubuntu"),
        *("busybox", "busybox:glibc", "alpine"),
    } <= set(shipped["images"])
    assert all(image["registry"] and image["apt"] for image in shipped["images"].values())
