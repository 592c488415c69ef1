"""Computes the package list: a hand-written one silently drops new sub-packages from the wheel."""

from setuptools import find_packages, setup

setup(
    packages=[
        *(["rlkit", *(f"rlkit.{name}" for name in find_packages("rlkit"))]),
        *(["rlkit.envs", *(f"rlkit.envs.{name}" for name in find_packages("envs"))]),
        *(["rlkit.agents", *(f"rlkit.agents.{name}" for name in find_packages("agents"))]),
        "rlkit.recipes",
    ]
)
