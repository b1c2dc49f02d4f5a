"""Every golden file holds to its JSON Schema, and the schemas tell right from wrong."""

import copy
import json

import pytest
from conftest import ROOT
from jsonschema import Draft202012Validator

SCHEMAS = ROOT / "schemas/json"
GOLDEN = json.loads((SCHEMAS / "golden.json").read_text())


def golden(name):
    return json.loads((ROOT / f"schemas/golden/{name}.json").read_text())


def validator(name):
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_no_golden_file_is_without_a_schema():
    assert set(GOLDEN) == {path.stem for path in (ROOT / "schemas/golden").glob("*.json")}


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_a_golden_file_holds_to_its_schema(name):
    validator(GOLDEN[name]).validate(golden(name))


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_a_field_of_a_newer_version_is_allowed(name):
    validator(GOLDEN[name]).validate({**golden(name), "from_the_future": [1]})


@pytest.mark.parametrize(
    "name, path, value",
    [
        ("batch", ["stream"], "not hex"),
        ("batch", ["t"], "here"),
        ("batch", ["first"], -1),
        ("batch", ["events", 0, "k"], "click"),
        ("batch", ["events", 1, "p", "colour"], {}),
        ("ack", ["refused", 0, "reason"], "no_such_reason"),
        ("nack", ["retry_ms"], "soon"),
        ("stop", ["t"], "no_such_frame"),
        ("server_request", ["events", 0, "visitor"], 42),
        ("server_answer", ["results", 0, "result"], "perhaps"),
    ],
)
def test_what_is_wrong_is_told(name, path, value):
    wrong = copy.deepcopy(golden(name))
    place = wrong
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert not validator(GOLDEN[name]).is_valid(wrong)
