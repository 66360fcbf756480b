"""Calls upstreams over HTTP/1.1 (RFC 9112), on connections of its own to addresses that were checked.

Never follows a redirect. It uses no proxy of the environment, decompresses nothing, and sends none of a client's own
headers on.
"""
