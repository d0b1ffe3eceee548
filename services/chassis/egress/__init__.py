"""Requests over HTTP to addresses that other people gave: they reach the public internet and what the operator allows.

`Egress` makes them. What it may reach is judged by `Guard`, for each request and each redirect anew, and the connection
goes to the very address that was judged.
"""
