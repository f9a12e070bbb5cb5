"""The training of `tiny.py` by adapters beside a trained model: `adapted.py:WORKDIR`."""

import ml_collections

from tests.training import tiny

LORA = {"rank": 3, "alpha": 6, "targets": ("query", "value", "down")}


def get_config(source: str = "", dtype: str = "float32") -> ml_collections.ConfigDict:
    """`source` is the model's workdir."""
    config = tiny.get_config()
    del config.tokenizer
    config.model = {"dtype": dtype, "param_dtype": dtype}
    config.train.update(init_from=source, num_steps=6, eval_every=3, checkpoint_every=2)
    config.train.lora = dict(LORA)
    return config
