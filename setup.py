"""Beside what pyproject.toml says: scripts and configs are packages of the wheel, so that
`speccascade evaluate --config=configs/quickstart.py` needs no checkout."""

from setuptools import find_packages, setup

ELSEWHERE = {
    "speccascade.commands": "scripts",
    "speccascade.configs": "configs",
    "speccascade.configs.paper": "configs/paper",
}

setup(packages=[*find_packages(include=["speccascade*"]), *ELSEWHERE], package_dir=ELSEWHERE)
