"""Every field that a config may leave out is a flag; a name that none has is refused."""

import functools
import itertools

import ml_collections
import pytest
from absl import flags
from ml_collections import config_flags

from speccascade.errors import UserError
from speccascade.inputs import optional_fields
from speccascade.pairs import combined
from speccascade.runtime import config_flag
from speccascade.sharding import mesh

FILE = """
import ml_collections

def get_config():
    sections = {sections!r}
    return ml_collections.ConfigDict({{name: {{"there": 1}} for name in sections}})
"""
VALUES = {
    int: "3",
    bool: "true",
    float: "0.5",
    str: "a_text",
    object: "(1, 2)",
    dict: "{'data': 2}",
}
READ = {int: 3, bool: True, float: 0.5, str: "a_text", object: (1, 2), dict: {"data": 2}}
FIELDS = [
    (f"{section}.{name}" if section else name, kind)
    for section, fields in optional_fields.BY_SECTION.items()
    for name, kind in fields.items()
]


@pytest.fixture
def read(tmp_path):
    """What a command line makes of a config file."""

    def parsed(text, *more):
        path = tmp_path / "config.py"
        path.write_text(text)
        argv, values = ["script", f"--config={path}", *more], flags.FlagValues()
        found = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
        values["config"].parser = config_flag.Parser(values["config"].parser, argv)
        values(argv)
        return found.value

    return parsed


@pytest.fixture
def parse(read):
    """What a command line makes of a config whose sections have a field each."""
    sections = ["model", *(name for name in optional_fields.BY_SECTION if name)]
    return functools.partial(read, FILE.format(sections=sections))


def test_every_optional_field_of_every_section_can_be_set(parse):
    sections = optional_fields.BY_SECTION
    whole = [at for at in FIELDS if at[0].rpartition(".")[2] not in sections]
    found = parse(*(f"--config.{name}={VALUES[kind]}" for name, kind in whole))
    for name, kind in whole:
        section, _, field = name.rpartition(".")
        assert found[section][field] == READ[kind], name
    assert {len(section) for section in found.values()} > {1}
    assert parse("--config.train.lora.rank=8").train.lora.rank == 8


def test_what_no_flag_sets_stays_away(parse):
    found = parse("--config.train.ema_decay=0.99")
    assert found.train.to_dict() == {"there": 1, "ema_decay": 0.99}
    assert found.task.to_dict() == {"there": 1}
    with pytest.raises(AttributeError):
        found.train.other = 1  # locked, as it is without such a flag


def test_a_models_fields_are_those_of_its_family(parse):
    found = parse("--config.model.window_pattern=(True, False)", "--config.model.rope_base=1e4")
    assert found.model.window_pattern == (True, False) and found.model.rope_base == 1e4
    with pytest.raises(UserError, match=r"'rope_bass'; did you mean model.rope_base\?"):
        parse("--config.model.rope_bass=2")


class Given(flags.ArgumentParser):
    """What loads a config that is there already."""

    def __init__(self, config):
        self._config = config

    def parse(self, path):
        return self._config


def test_a_whole_section_that_is_left_out():
    inner = Given(ml_collections.ConfigDict().lock())
    found = config_flag.Parser(inner, ["--config.mesh.model=2", "--config.pair=here"]).parse("")
    assert set(found) == {"mesh", "pair"} and set(found.mesh) == {"model"}


@pytest.mark.parametrize("name", ["there.x", "train.there.x"])
def test_a_section_that_is_none_is_left_to_be_told(parse, name):
    with pytest.raises((KeyError, TypeError, UserError)):
        parse(f"--config.{name}=1")


NAMED = """
import ml_collections

def get_config():
    return ml_collections.ConfigDict({"pair": "shipped:mine", "sizes": [1, 2]})
"""


@pytest.mark.parametrize(
    "given",
    [
        ("--config.pair.drafter=a", "--config.pair.expert=b"),
        ("--config.pair={'drafter': 'a', 'expert': 'b'}",),
    ],
)
def test_sources_take_the_place_of_a_pair_by_name(given, read):
    assert dict(read(NAMED, *given).pair) == {"drafter": "a", "expert": "b"}


def test_a_pair_by_name_stays_one(read):
    assert read(NAMED).pair == "shipped:mine"
    assert read(NAMED, "--config.pair=runs/mine").pair == "runs/mine"
    assert read(NAMED, "--config.pair.drafter=a").pair.expert is None  # told by whoever loads it


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("pair.drafter.x=1", "pair.drafter has no value that pair.drafter.x could be in; set pair"),
        ("pair.drafters.x=1", "pair.drafters has no value that"),
        ("pair.expert[0]=1", r"pair.expert has no \[0\]; set pair.expert as a whole"),
        ("pair={'expert': 'b'}", "pair has no value that pair.chat could be in; set pair"),
        ("sizes[2]=1", r"sizes has no \[2\]"),
        ("sizes[-3]=1", r"sizes has no \[-3\]"),
        ("sizes[0][0]=1", r"sizes has no \[0\]"),
        ("sizs[0]=1", r"the config has no field 'sizs'; did you mean sizes\?"),
    ],
)
def test_nothing_is_set_within_what_is_not_there(given, message, read):
    with pytest.raises(UserError, match=f"^{message}"):
        read(NAMED, f"--config.{given}", *["--config.pair.chat=true"][: given.startswith("pair=")])
    assert read(NAMED, "--config.sizes[1]=5", "--config.sizes[-2]=4").sizes == [4, 5]


@pytest.mark.parametrize("name", ["train.list.0.x", "train..x", "train.max-x", "train.x["])
def test_what_is_no_field_is_one_line(parse, name):
    with pytest.raises(UserError, match="is no field; write section.field") as error:
        parse(f"--config.{name}=1")
    assert "\n" not in str(error.value)


def test_mistyped_names_are_refused_with_the_nearest(parse):
    for name, _ in FIELDS:
        section, dot, field = name.rpartition(".")
        for at, more in itertools.product((len(field),), ("x", "_")):
            mistyped = f"{section}{dot}{field[:at]}{more}"
            with pytest.raises(UserError, match=rf"has no field .*; did you mean {name}\?$"):
                parse(f"--config.{mistyped}=1")


def test_sections_are_those_that_readers_refuse_others_of():
    assert set(optional_fields.PAIR) == {*combined._OPTIONS, "drafter", "middle"}
    assert set(mesh.AXES) == set(optional_fields.BY_SECTION["mesh"]) - {"drafter"}
