"""Plots and images, drawn with matplotlib and Pillow."""
