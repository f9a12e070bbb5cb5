"""Drafters made of their expert: it writes texts, a few of its layers learn to draft them.

texts.py      what the expert writes, and what it thinks of it
training.py   the drafter's training
"""
