"""Calls upstreams over HTTP/1.1 (RFC 9112), on connections of its own to addresses that were checked.

Never follows a redirect, uses a proxy of the environment, decompresses, or sends a client's own headers on.
"""
