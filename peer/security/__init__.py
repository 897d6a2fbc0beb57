"""Who may ask what: TLS, tokens with a scope, and the table of permissions."""
