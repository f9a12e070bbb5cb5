"""Drafters made of their expert: it writes texts, a few of its layers learn to draft them.

texts.py      texts and what the expert thinks of them, in files
writing.py    who writes them: the expert, or the drafter
rounds.py     rounds in which the drafter learns on what it writes itself
imitation.py  what is minimised, and the figures
training.py   all of it for a config
"""
