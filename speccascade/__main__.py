"""`python -m speccascade COMMAND --flags`."""

from speccascade.runtime.command import main

main()
