"""Commands for groups: several indexes that are switched together."""
