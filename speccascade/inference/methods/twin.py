"""An acceptance kernel a token at a time: the law of the mode, at one expert pass a token."""

from speccascade import decode, kernels
from speccascade.errors import UserError
from speccascade.inference import drafting, entry
from speccascade.inference.methods.kernel import Kernel
from speccascade.inference.setting import ByModel


class Twin(Kernel):
    """The direct twin of a mode, a check on it; `draft_length` is the mode's, behind whose blocks
    a token is drawn by another rule. Without one, none is."""

    name = "twin"
    in_blocks = False

    def read(self, given):
        """Takes a kernel whose tests hang on no other token of the block, and limits."""
        rule, knobs, known = entry.rule(given, rows=self.rows)
        size = given.get("draft_length")
        if size is not None:
            size = entry.length(given, "draft_length")
        if not kernels.KERNELS[rule].has_twin(dict(knobs), size):
            at = f"draft_length={size}" if size else "no draft_length"
            shown = " ".join(f"{k}={v:g}" for k, v in knobs)
            raise UserError(
                f"{rule} with {shown} and {at} has no twin: what it keeps hangs on other tokens of "
                "the block; docs/kernels.md says which have one"
            )
        drafted, own = drafting.read(given, rule)
        if not isinstance(drafted, ByModel):
            raise UserError("the drafts of a twin are a model's, as long as the mode's blocks")
        limits, limited = entry.truncations(given, "drafter", "expert")
        fields = {"rule": rule, "knobs": knobs, "draft_length": size, "drafting": drafted}
        return {**fields, **limits}, {*known, *own, *limited, "draft_length"}

    def label(self, setting):
        """Returns the kernel's name and its own."""
        return f"{setting.rule} {self.name}"

    def decoder(self, room, setting):
        """Returns the loop of blocks, with blocks of one token."""
        pair = room.pair
        drafter, own = setting.drafting.drafter(pair)
        verifier = kernels.Twin(setting.draft_length)
        decoder = decode.Decoder(
            pair.expert, drafter, 1, room.max_new_tokens, verifier, layout=pair.layout
        )
        return decoder, {"drafter": own, "expert": pair.params["expert"]}

    def scored(self, setting, counts):
        """A pass scores the newest token and the draft behind it."""
        calls = counts["expert_calls"]
        return {**setting.drafting.scored(counts, calls, True), "expert": 2 * calls}


TWIN = Twin()
