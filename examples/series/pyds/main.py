"""Imports what data science starts with."""

import matplotlib
import numpy
import pandas

print(f"{matplotlib.__name__}, {numpy.__name__} and {pandas.__name__} are there")
