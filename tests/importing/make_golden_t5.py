"""Makes the golden logits of the T5 versions with `transformers` and torch.

PYTHONPATH=. python tests/importing/make_golden_t5.py --out=tests/importing
"""

import numpy as np
import torch
import transformers

from tests.importing import golden
from tests.importing import t5_families as families


def reference(version: str):
    """Returns the reference's model of a version, in float32, with the weights of `families`."""
    config = transformers.T5Config(**families.VERSIONS[version], attn_implementation="eager")
    model = transformers.T5ForConditionalGeneration(config).float().eval()
    if not config.scale_decoder_outputs:  # a new model's head is tied whatever the config says
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.shared.weight))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(families.tensor(name, tuple(parameter.shape))))
    return model


def logits(model) -> np.ndarray:
    """Returns the reference's logits of the answers, float32 [B, ANSWER, V], row by row."""
    prompts, answers = families.texts()
    found = []
    for prompt, answer, length in zip(prompts, answers, families.PROMPTS, strict=True):
        written = np.concatenate([[model.config.decoder_start_token_id], answer[:-1]])
        with torch.no_grad():
            out = model(
                input_ids=torch.from_numpy(prompt[None, :length]).long(),
                decoder_input_ids=torch.from_numpy(written[None]).long(),
                use_cache=False,
            )
        found.append(out.logits[0].numpy())
    return np.stack(found)


def main():
    golden.store(__doc__.splitlines()[0], families, families.VERSIONS, reference, logits)


if __name__ == "__main__":
    main()
