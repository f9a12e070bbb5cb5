"""A model class for EleutherAI's lm-evaluation-harness, over any pair and setting.

arguments.py    --model_args
requests.py     what a task asks of one answer
likelihood.py   a setting's target on texts that others wrote
backend.py      the three things that a model class must do, without the library
model.py        the model class
__main__.py     `python -m speccascade.lm_eval`, the library's command with this class in it
"""
