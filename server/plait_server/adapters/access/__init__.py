"""Who may call: the tokens file, and the files of TLS."""
