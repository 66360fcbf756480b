"""The contracts: everything that crosses a process boundary, and nothing else.

Holds shapes and their units; never logic, input/output or defaults that a setting decides.
"""
