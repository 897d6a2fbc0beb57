"""Moves blocks between hosts over plain or encrypted sockets, frames of forebay.peer.frames, without gRPC."""
