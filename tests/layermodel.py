"""A model of the specification: a dictionary of all paths, and who made each; and layers for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from hypothesis import strategies as st

from layertars import file, folder, hard_link, symlink

if TYPE_CHECKING:
    import tarfile

    from layertars import Entry

NAMES = st.sampled_from(("a", "b", "c"))
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
TARGETS = st.sampled_from(
    ("a", "b", "c/a", "../a", "/a/b", "/", ".", "..", "../../canary", "/canary", "../../canary/a")
)
MARKS = st.builds(
    lambda path: "/".join((*path.split("/")[:-1], ".wh." + path.split("/")[-1])), PATHS
)
OPAQUES = st.one_of(st.just(".wh..wh..opq"), PATHS.map(lambda path: f"{path}/.wh..wh..opq"))
PLAIN = st.one_of(
    st.builds(file, PATHS, st.binary(max_size=3)),
    st.builds(folder, PATHS),
    st.builds(symlink, PATHS, TARGETS),
    st.builds(hard_link, PATHS, PATHS),
)
ENTRIES = st.one_of(PLAIN, st.builds(file, MARKS), st.builds(file, OPAQUES))
LAYERS = st.lists(st.lists(ENTRIES, max_size=6), min_size=1, max_size=4)

Place: TypeAlias = tuple[str, ...]


class RefusedError(Exception):
    """The model refuses an entry."""


class Model:
    """What layers give, as simply as it can be said."""

    def __init__(self) -> None:
        self.nodes: dict[Place, tuple[bytes | str | None, int]] = {}
        self.layer = 0
        self.followed: set[Place] = set()

    def add(self, info: tarfile.TarInfo, data: bytes) -> None:
        *parents, last = info.name.split("/")
        if last.startswith(".wh."):
            self._whiteout(parents, last.removeprefix(".wh."))
            return
        place = (*self._made(parents), last)
        value = self._value(info, data, place)
        if value is not None or (place in self.nodes and self.nodes[place][0] is not None):
            self._remove(place, self.layer + 1)
        self.nodes[place] = value, self.layer

    def _value(self, info: tarfile.TarInfo, data: bytes, place: Place) -> bytes | str | None:
        if info.issym():
            return info.linkname
        if not info.islnk():
            return data if info.isreg() else None
        *parents, last = info.linkname.split("/")
        behind = self._resolve(parents, make=False)
        target = (*behind, last) if behind is not None else ()
        value = self.nodes.get(target, (None, 0))[0]
        if value is None or target[: len(place)] == place:
            raise RefusedError
        return value

    def _whiteout(self, parents: list[str], name: str) -> None:
        place = self._resolve(parents, make=False)
        if place is not None and name == ".wh..opq":
            for each in [each for each in self.nodes if each[:-1] == place]:
                self._remove(each, self.layer)
        elif place is not None:
            self._remove((*place, name), self.layer)

    def _remove(self, place: Place, before: int) -> None:
        """Remove what was made before a layer, but not the folders of what stays."""
        inside = [each for each in self.nodes if each[: len(place)] == place]
        stays = [each for each in inside if self.nodes[each][1] >= before]
        for each in inside:
            if not any(other[: len(each)] == each for other in stays):
                del self.nodes[each]

    def _made(self, parts: list[str]) -> Place:
        place = self._resolve(parts, make=True)
        if place is None:
            raise RefusedError
        return place

    def _resolve(self, parts: list[str], *, make: bool) -> Place | None:
        place: Place = ()
        todo, links = list(parts), 0
        while todo:
            part = todo.pop(0)
            if part in {"", ".", ".."}:
                place = place[:-1] if part == ".." else place
                continue
            below = (*place, part)
            if make:
                self.nodes.setdefault(below, (None, self.layer))
            value = self.nodes[below][0] if below in self.nodes else b"missing"
            if isinstance(value, bytes):
                return None
            if value is None:
                place = below
                continue
            self.followed.add(below)
            place, todo, links = (
                () if value.startswith("/") else place,
                value.split("/") + todo,
                links + 1,
            )
            if links > 40:
                raise RefusedError
        return place


def clear(entries: list[Entry]) -> list[Entry]:
    """Return the entries of a layer that nobody refuses or takes for something else.

    One that replaces a link which its own path leads through means something else to everybody.
    """
    model, found = Model(), []
    for info, data in entries:
        before = dict(model.nodes)
        model.followed.clear()
        try:
            model.add(info, data)
            is_clear = all(model.nodes.get(each) == before[each] for each in model.followed)
        except RefusedError:
            is_clear = False
        if is_clear:
            found.append((info, data))
        else:
            model.nodes = before
    return found


def as_builders_write(layers: list[list[Entry]]) -> list[list[Entry]]:
    """Return layers as those who build images write them: what they do not, engines do variously.

    Whiteouts come first, each for something that is there; no name is there twice, nothing lies
    behind a link, and hard links are to files of their own layer.
    """
    model, written = Model(), []
    for model.layer, entries in enumerate(layers):
        builder = _Builder(model)
        marks = [each for each in entries if ".wh." in each[0].name]
        others = [each for each in entries if ".wh." not in each[0].name]
        written.append([each for each in (*marks, *others) if builder.takes(each)])
    return written


class _Builder:
    """Writes one layer onto a model."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._below = dict(model.nodes)
        self._named: set[Place] = set()
        self._hidden: set[Place] = set()
        self._gone: set[Place] = set()

    def takes(self, entry: Entry) -> bool:
        """Add an entry, if a builder writes such."""
        info, data = entry
        *parents, last = info.name.split("/")
        if last == ".wh..wh..opq":
            fits = self._hides(tuple(parents), folder=True)
        elif last.startswith(".wh."):
            fits = self._hides((*parents, last.removeprefix(".wh.")), folder=False)
        else:
            fits = self._fits(info, (*parents, last))
        if fits:
            self._model.add(info, data)
        return fits

    def _hides(self, place: Place, *, folder: bool) -> bool:
        """Tell whether something of the layers below can be hidden that nothing else hides."""
        is_there = place in self._below and (not folder or self._below[place][0] is None)
        if not is_there or any(_related(place, each) for each in self._hidden):
            return False
        self._hidden.add(place)
        if not folder:
            self._gone.add(place)
        return True

    def _fits(self, info: tarfile.TarInfo, place: Place) -> bool:
        above = [place[:at] for at in range(1, len(place))]
        values = [self._model.nodes.get(each, (None, 0))[0] for each in above]
        replaces = not info.isdir() and any(each[: len(place)] == place for each in self._named)
        if replaces or place in self._named or not self._gone.isdisjoint([*above, place]):
            return False
        if any(value is not None for value in values) or (
            info.islnk() and not self._is_own(tuple(info.linkname.split("/")), place)
        ):
            return False
        self._named.add(place)
        return True

    def _is_own(self, target: Place, place: Place) -> bool:
        """Tell whether a link's target is of this layer, and not in the link's own place."""
        value, layer = self._model.nodes.get(target, (None, 0))
        return value is not None and layer == self._model.layer and target[: len(place)] != place


def _related(one: Place, other: Place) -> bool:
    short = min(len(one), len(other))
    return one[:short] == other[:short]
