"""A pair's whole experiment: models fine-tuned, a sweep over them, its report.

stages.py     what the stages are, and how each is run
forecast.py   what each needs, said before it is run
"""

from speccascade.experiment.forecast import describe
from speccascade.experiment.stages import STAGES, run

__all__ = ["STAGES", "describe", "run"]
