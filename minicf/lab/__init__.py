"""The apparatus around the package: what train.py, the lessons and the tests need to run, measure
and draw. Nothing here is part of a method; to copy from minicf, leave this folder behind.
"""
