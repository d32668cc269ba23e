"""In Jupyter: views of what a cell ends with, the explorer, and the magic."""
