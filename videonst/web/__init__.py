"""The page and its server: cameras of browsers and the server's own source, repainted live. Needs the extra `[web]`."""
