"""Training on worked answers.

data.py       tokenised problems
token_rows.py their tokens, in a file of which only what is asked for is read
batches.py    which of them a step reads
losses.py     losses per token
objective.py  what is minimised and measured
given.py      trained models that another begins or learns from
adapters.py   what is trained in the weights' place
optimizer.py  optimisers by name
step.py       one step, on one device or on a mesh
tracing.py    a profiler trace of a few of them
steps.py      the loop around steps: metrics, checkpoints, going on
loop.py       all of it for a config
learned_head.py  the head of the rule `learned`
"""
