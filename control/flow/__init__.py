"""What happens on each request of the management API; one module for each kind of thing.

Every function runs inside one transaction of its caller.
"""
