"""Acceptance kernels: the lossy modes of engines whose law is no target of q and p.

To add one, write one file with its `judge` and give it one row in `KERNELS`; docs/kernels.md says
what each samples from.
"""

from speccascade.kernels.asd import ASD
from speccascade.kernels.cactus import CACTUS
from speccascade.kernels.fly import FLY
from speccascade.kernels.interface import VERIFIER, Block, Judgement, Kernel
from speccascade.kernels.sglang import SGLANG
from speccascade.kernels.trtllm import TRTLLM
from speccascade.kernels.twin import Twin
from speccascade.kernels.typical import MEDUSA, VLLM
from speccascade.kernels.verify import begin, law, verify
from speccascade.kernels.vllm import VLLM_RELAXED

KERNELS: dict[str, Kernel] = {
    "medusa_typical": MEDUSA,
    "vllm_typical": VLLM,
    "sglang_threshold": SGLANG,
    "trtllm_relaxed": TRTLLM,
    "vllm_relaxed": VLLM_RELAXED,
    "fly": FLY,
    "asd": ASD,
    "cactus": CACTUS,
}

__all__ = ["KERNELS", "VERIFIER", "Block", "Judgement", "Kernel", "Twin", "begin", "law", "verify"]
