"""Plans a run on TPUs without one: what fits, what is compiled, and how long it should take.

topology.py  the devices of a slice, described without having it
subject.py   what is planned: a config's pair, its mesh and the shapes of a batch
roofline.py  operations and bytes of a pass over a chip's rates, up to the time of a token
program.py   the decode loop, compiled for the slice
streams.py   how often that streams vocabulary-wide arrays over memory
fit.py       the largest batch that fits, and where none does the nearest setting that would
report.py    all of it as text
training.py  the steps that train the pair's models, compiled for the slice
training_report.py  that as text
planning.py  what scripts/tpu_plan.py calls
"""
