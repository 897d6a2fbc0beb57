"""One command for all members of a group: each does its share, and what each says comes together."""
