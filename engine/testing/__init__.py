"""Doubles that ship with the library: a fault proxy, an S3 server, a manual clock, a faulty storage.

They are for the tests of whatever uses forebay as much as for its own. Each is imported from its own
module; nothing in the library imports them.
"""
