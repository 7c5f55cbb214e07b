"""Kernels for CPUs, written in vectors of sixteen numbers and compiled for the machine at start.

They compute in float32 and each number alone: a row's bits do not depend on how rows are dealt to
threads or tiles, nor on how many there are.
"""
