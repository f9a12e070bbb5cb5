"""What a workdir says to another config."""

import json

import pytest

from speccascade.errors import UserError
from speccascade.workdir.claim import claim_workdir


def test_few_of_many_differing_fields_are_named(tmp_path):
    path = str(tmp_path / "w")
    claim_workdir(path, {"task": {"name": "gsm8k"}})
    claim_workdir(path, {"task": {"name": "gsm8k"}})
    before = (tmp_path / "w" / "config.json").read_text()
    with pytest.raises(UserError, match=r"config: task\.name \(gsm8k there, xsum now\); use a new"):
        claim_workdir(path, {"task": {"name": "xsum"}})
    other = {"model": {f"field_{i:02}": i for i in range(20)}, "task": {"name": "gsm8k"}}
    with pytest.raises(UserError, match=r"field_00 \(None there, 0 now\), .* and 14 more; use a"):
        claim_workdir(path, other)
    assert json.loads(before) == {"task": {"name": "gsm8k"}}
    assert (tmp_path / "w" / "config.json").read_text() == before
