"""Spec-Bench (Xia et al. 2024): conversations at batch 1, answered and written in its form.

questions.py     its file of questions, and SPEED-Bench's
conversation.py  a question's turns, each timed
answering.py     from a config to files of answers
speed.py         its arithmetic over them, by task
"""
