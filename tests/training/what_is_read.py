"""The training of `on_a_mesh.py`, of which every process notes the rows that it reads.

`what_is_read.py:data=2,fsdp=2@FOLDER`: a file per process and in it a line per batch, a JSON list
of its rows and of whether each is read.
"""

import json
import pathlib

import jax
import ml_collections
import numpy as np

from speccascade.training.token_rows import TokenRows
from tests.training import on_a_mesh


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """`arg` is the mesh's sizes and, behind an @, where the notes go."""
    sizes, _, folder = arg.partition("@")
    take = TokenRows.take

    def noted(self, rows, needed=None):
        read = np.ones(len(rows), bool) if needed is None else needed
        line = json.dumps([rows.tolist(), read.tolist()])
        with open(pathlib.Path(folder) / str(jax.process_index()), "a") as file:
            file.write(f"{line}\n")
        return take(self, rows, needed)

    if folder:
        TokenRows.take = noted
    return on_a_mesh.get_config(sizes)
