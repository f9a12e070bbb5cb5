"""The command of lm-evaluation-harness, with the model "speccascade" in it:

    python -m speccascade.lm_eval --model speccascade --tasks TASK \
        --model_args pair=shipped:gsm_symbolic,rule=token_v3,alpha=0.3,draft_length=4

It takes whatever `lm_eval` takes. See docs/lm_eval.md.
"""

import sys


def main() -> None:
    """Runs the library's command; a user's mistake ends it with one line."""
    from speccascade.errors import UserError
    from speccascade.runtime import compilation_cache

    try:
        try:
            from lm_eval.__main__ import cli_evaluate
        except ImportError:
            raise UserError(
                "the package lm_eval is missing: pip install -r requirements-lm-eval.txt"
            ) from None
        from speccascade.lm_eval import model  # noqa: F401 - registers itself

        compilation_cache.enable()
        cli_evaluate()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
