"""What any rule would have done at saved positions: behind `scripts/replay.py`.

known.py      a distribution of which some tokens are listed: what is sure of it
bounds.py     what is sure of each rule: rejection and deferral, from below and above;
              head.py of a learned one's head, between.py of sums and products
positions.py  the same of whole distributions, exactly; either for all answers of a file
blocks.py     blocks over those positions: tokens per expert call
sources.py    workdirs and files; what was measured there
replaying.py  from what is named on the command line to a table
"""
