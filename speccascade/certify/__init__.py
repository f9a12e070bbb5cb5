"""Two sets of saved answers, one verdict: behind `scripts/certify.py`.

forms.py      rows of other engines' files as samples; reading.py reads and checks whole files
workdirs.py   settings of our own workdirs
scoring.py    what a sample is worth
measured.py   a setting by prompt: scores, times; what is aligned
verdict.py    what may be said, and how surely
summary.py    in words
"""
