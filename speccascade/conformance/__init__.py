"""A kit by which any engine's verifier is checked: cases, answers, planted mistakes, a checker.

cases.py     what goes in: distributions, drafts, uniforms kept clear of thresholds
expected.py  what must come out, by the rules and the verifier of this project
plain.py     the verifier once more, in the plainest words, and mistakes planted in it
kit.py       writes it all
check.py     reads another engine's answers; needs nothing but Python
"""
