"""What happens on each request of the management API, in the spec's words; one module for each kind of thing.

Every function runs inside one transaction of its caller.
"""
